"""The scripts that start runs elsewhere, with stand-ins for the programs of clusters; and the container's recipe."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TPU_VM, SLURM = ROOT / "scripts" / "tpu_vm.sh", ROOT / "scripts" / "slurm.sbatch"
DOCKERFILE = ROOT / "Dockerfile"
AWKWARD = ["--config=configs/toy2d.py:esd", "--workdir=/shared/a run", '--note=it\'s "$HOME" `ls` $(ls) \\ * &', ""]
SECONDS = 20


def _linter(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or pytest.skip(f"no {name}: see requirements.txt")


def _environment(**more) -> dict[str, str]:
    """Of a user who is on no cluster and has set nothing."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SGFLOW_", "CLOUDSDK_"))}
    return kept | {"PYTHON": sys.executable} | {name: str(value) for name, value in more.items()}


def _run(script: Path, *args: str, **env) -> subprocess.CompletedProcess:
    # By its path, as PATH may have nothing.
    command = [shutil.which("bash"), script, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=_environment(**env), cwd=ROOT)


def _program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/usr/bin/env bash\n{text}")
    file.chmod(0o755)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _wait_until(true) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def _is_shell(file: Path) -> bool:
    return file.is_file() and re.match(rb"#!.*\b(ba|da)?sh\n", file.read_bytes()) is not None


SHELL_SCRIPTS = sorted(filter(_is_shell, [*(ROOT / "scripts").iterdir(), *(ROOT / ".ci").iterdir()]))


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda file: file.name)
def test_shellcheck(script):
    found = subprocess.run([_linter("shellcheck"), script], capture_output=True, text=True)
    assert not found.returncode, found.stdout


def test_every_shell_script_is_checked():
    assert {TPU_VM, SLURM, ROOT / ".ci" / "run"} <= set(SHELL_SCRIPTS)


@pytest.mark.parametrize(
    "script, args, named",
    [
        (TPU_VM, [], "command"),
        (TPU_VM, ["destroy", "run1"], "destroy"),
        (TPU_VM, ["create"], "slice"),
        (TPU_VM, ["create", "--dry-run"], "slice"),
        (TPU_VM, ["create", "run1", "--zone", "z1", "--dry-run"], "'--zone'"),
        (TPU_VM, ["create", "run1", "--dry-run", "--", "--config=c.py"], "--"),
        (TPU_VM, ["install", "run1", "--dry-run", "--revision=v1"], "--repo"),
        (TPU_VM, ["install", "run1", "--dry-run", "--revision=v1", "--repo=-x"], "--repo"),
        (TPU_VM, ["install", "run1", "--dry-run", "--repo=https://HOST/NAME.git"], "--revision"),
        (TPU_VM, ["run", "run1", "--dry-run", "--config=c.py"], "after --"),
        (TPU_VM, ["run", "run1", "--dry-run"], "--config"),
        (TPU_VM, ["run", "run1", "--dry-run", "--", "--config=c.py"], "--workdir"),
        (TPU_VM, ["run", "run1", "--dry-run", "--", "--config=c.py", "--workdir=gs://bucket/a"], "gs://bucket/a"),
        (TPU_VM, ["run", "run1", "--dry-run", "--", *AWKWARD, "a\nb"], "line break"),
        (TPU_VM, ["install", "run1", "--dry-run", "--setup=a\nb"], "line break"),
        (SLURM, [], "--config"),
        (SLURM, ["--dry-run"], "--config"),
        (SLURM, AWKWARD, "sbatch"),
    ],
)
def test_faults_are_one_line_and_code_2(script, args, named):
    found = _run(script, *args)
    assert found.returncode == 2
    assert found.stdout == ""
    assert re.fullmatch(r"error: [^\n]+: [^\n]+\n", found.stderr) and named in found.stderr


# Cloud TPU


def _tpu_dry(*args: str, **env) -> list[list[str]]:
    """The words of each command, where there is no gcloud, and no other program either."""
    options = args.index("--") if "--" in args else len(args)
    found = _run(TPU_VM, *args[:options], "--dry-run", *args[options:], PATH="/nowhere", **env)
    assert not found.returncode, found.stderr
    return [shlex.split(line) for line in found.stdout.splitlines()]


TPU = ["gcloud", "compute", "tpus", "tpu-vm"]
PLACE = ["--zone=z1", "--project=p1"]


@pytest.mark.parametrize(
    "command, calls",
    [
        ("create", ["create"]),
        ("install", ["ssh"]),
        ("run", ["ssh"]),
        ("resume", ["describe", "delete", "create", "ssh", "ssh"]),
        ("status", ["describe", "ssh"]),
        ("stop", ["ssh"]),
        ("delete", ["delete"]),
    ],
)
def test_tpu_dry_run_is_what_would_be_called(command, calls):
    lines = _tpu_dry(command, "run1", *PLACE, "--repo=https://HOST/a name.git", "--revision=v1", *_main_of(command))
    assert [line[:9] for line in lines] == [[*TPU, call, "run1", "--quiet", *PLACE] for call in calls]
    assert all("--worker=all" in line for line in lines if line[4] == "ssh")


def _main_of(command: str) -> list[str]:
    return ["--", *AWKWARD] if command in ("run", "resume") else []


def test_tpu_create():
    (found,) = _tpu_dry("create", "run1", *PLACE, "--accelerator=v6e-16", "--spot")
    options = ["--accelerator-type=v6e-16", "--version=v2-alpha-tpuv6e", "--spot"]
    assert found == [*TPU, "create", "run1", "--quiet", *PLACE, *options]


def test_tpu_environment_variables_stand_for_options():
    (found,) = _tpu_dry("create", "run1", SGFLOW_ACCELERATOR="v5p-8", SGFLOW_TPU_VERSION="other")
    assert found == [*TPU, "create", "run1", "--quiet", "--accelerator-type=v5p-8", "--version=other"]


def test_tpu_help_names_every_command():
    said = _run(TPU_VM, "--help").stdout
    assert all(f"\n  {name} " in said for name in ("create", "install", "run", "resume", "status", "stop", "delete"))


GCLOUD = r"""
echo "$4" >>"$FAKE/calls"
case $4 in
  describe) cat "$FAKE/state" ;;
  create) [ ! -e "$FAKE/state" ] && echo READY >"$FAKE/state" && mkdir -p "$FAKE/worker0" "$FAKE/worker1" ;;
  delete) rm -r "$FAKE"/state "$FAKE"/worker* ;;
  ssh)
    for argument; do
      case $argument in --command=*) command=${argument#*=} ;; esac
    done
    code=0
    for worker in "$FAKE"/worker*; do (cd "$worker" && HOME=$worker bash -c "$command") || code=$?; done
    exit "$code"
    ;;
esac
"""
# Of a worker: makes a .venv whose pip writes down what it is asked for.
PYTHON3 = f"""
if [ "$2" = uv ]; then
  mkdir -p .venv/bin && ln -s {sys.executable} .venv/bin/python
  printf '#!/usr/bin/env bash\\nprintf "%%s\\\\n" "$@" >pip' >.venv/bin/pip && chmod +x .venv/bin/pip
fi
"""
# Says and saves what it is there for.
MAIN = """
import json, pathlib, signal, sys, time
def save(*_):
    pathlib.Path("saved").touch()
    sys.exit()
signal.signal(signal.SIGTERM, save)
pathlib.Path("requirements.txt").exists() and print("VERSION", flush=True)
pathlib.Path("arguments.part").write_text(json.dumps(sys.argv[1:]))
pathlib.Path("arguments.part").rename("arguments")
while pathlib.Path("main.py").exists():
    time.sleep(0.02)
"""


class _Slice:
    """A slice of two workers, each a directory, behind a stand-in for gcloud."""

    def __init__(self, folder: Path):
        self.folder = folder
        _program(folder / "bin" / "gcloud", GCLOUD)
        _program(folder / "bin" / "python3", PYTHON3)
        self.setup = f"mkdir -p '{folder}/a share' # as a mount would"
        self.main = [*AWKWARD, f"--workdir={folder}/a share/run"]
        self._git("init", "-q", "-b", "main")
        self.commit("one")

    @property
    def workers(self) -> list[Path]:
        return sorted(self.folder.glob("worker*/sgflow_jax"))

    def commit(self, version: str) -> str:
        """Commits main.py, and gives the commit."""
        (self._repo / "requirements.txt").touch()
        (self._repo / "main.py").write_text(MAIN.replace("VERSION", version))
        self._git("add", ".")
        self._git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", version)
        return self._git("rev-parse", "HEAD")

    def __call__(self, command: str, revision: str = "main") -> subprocess.CompletedProcess:
        install = [f"--repo={self._repo}", f"--revision={revision}", f"--setup={self.setup}"]
        main = ["--", *self.main] if command in ("run", "resume") else []
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return _run(TPU_VM, command, "run1", *install, *main, PATH=path, FAKE=self.folder)

    def wait_for(self, name: str) -> None:
        """Until each worker has the file."""
        _wait_until(lambda: all((worker / name).exists() for worker in self.workers))

    @property
    def _repo(self) -> Path:
        return self.folder / "a repository"

    def _git(self, *args: str) -> str:
        self._repo.mkdir(exist_ok=True)
        env = _environment(GIT_CONFIG_GLOBAL=os.devnull)
        return (
            subprocess.run(["git", *args], cwd=self._repo, env=env, check=True, capture_output=True)
            .stdout.decode()
            .strip()
        )


@pytest.fixture
def tpu(tmp_path):
    for program in ("git", "pgrep"):
        shutil.which(program) or pytest.skip(f"no {program} here, which the workers of a slice have")
    made = _Slice(tmp_path)
    yield made
    for worker in made.workers:
        if (worker / "main.pid").exists():
            subprocess.run(["pkill", "-KILL", "--pidfile", worker / "main.pid", "--full", "main.py"])


def test_a_job_on_all_workers_of_a_slice(tpu):
    first = tpu.commit("two")
    tpu.commit("three")
    assert not tpu("create").returncode
    installed = tpu("install", first)
    assert not installed.returncode, installed.stderr
    assert len(tpu.workers) == 2
    assert _lines(tpu.workers[1] / "pip") == ["install", "-q", "-r", "requirements.txt", "jax[tpu]"]

    assert not tpu("run").returncode
    tpu.wait_for("arguments")
    assert [json.loads((worker / "arguments").read_text()) for worker in tpu.workers] == [tpu.main] * 2
    assert [_lines(worker / "main.log") for worker in tpu.workers] == [["two"]] * 2
    said = tpu("status").stdout
    assert said.startswith("run1 is READY\n") and said.count(": main.py runs\n") == 2 and said.count("two\n") == 2
    again = tpu("run")
    assert again.returncode == 1 and again.stderr.count("main.py runs already") == 2

    for worker in tpu.workers:  # as when a terminal closes
        os.kill(int((worker / "main.pid").read_text()), signal.SIGHUP)
    assert not tpu("stop").returncode
    tpu.wait_for("saved")
    _wait_until(lambda: tpu("status").stdout.count("does not run") == 2)
    assert not tpu("install").returncode
    assert not tpu("run").returncode
    _wait_until(lambda: [_lines(worker / "main.log") for worker in tpu.workers] == [["two", "three"]] * 2)


@pytest.mark.parametrize(
    "state, calls",
    [
        ("READY", ["describe"]),
        ("PREEMPTED", ["describe", "delete", "create", "ssh", "ssh"]),
        ("TERMINATED", ["describe", "delete", "create", "ssh", "ssh"]),
        (None, ["describe", "create", "ssh", "ssh"]),
    ],
)
def test_resume_of_a_slice(tpu, state, calls):
    if state:
        tpu("create")
        (tpu.folder / "calls").unlink()
        (tpu.folder / "state").write_text(f"{state}\n")
    found = tpu("resume")
    assert not found.returncode, found.stderr
    assert _lines(tpu.folder / "calls") == calls
    if state != "READY":
        tpu.wait_for("arguments")


def test_a_job_whose_shared_directory_is_not_there_is_not_started(tpu):
    tpu.setup = "true"
    tpu("create")
    tpu("install")
    found = tpu("run")
    assert found.returncode == 1 and found.stderr.count("see --setup") == 2
    assert not any((worker / "main.pid").exists() for worker in tpu.workers)


def test_a_setup_that_fails_ends_install(tpu):
    tpu.setup = "exit 3"
    tpu("create")
    assert tpu("install").returncode == 3
    assert not tpu.workers


def test_resume_waits_for_a_slice_that_is_not_ready(tpu):
    (tpu.folder / "state").write_text("REPAIRING\n")
    found = tpu("resume")
    assert found.returncode == 1
    assert "REPAIRING" in found.stderr and len(found.stderr.splitlines()) == 1
    assert _lines(tpu.folder / "calls") == ["describe"]


# Slurm

SLURM_PROGRAMS = {
    "srun": """
printf '%s\\n' "$@" >"$FAKE/srun"
trap 'echo TERM >>"$FAKE/signals"; sleep 0.1; exit "$CODE"' TERM
echo $$ >"$FAKE/pid"
while [ -n "$LONG" ]; do sleep 0.02; done
exit "$CODE"
""",
    "scancel": 'echo "$*" >>"$FAKE/scancel"; kill -TERM "$(cat "$FAKE/pid")"',
    "scontrol": """
case $* in
  *show*) echo "JobId=7 JobState=$STATE Reason=None PreemptTime=$PREEMPTED SuspendTime=None" ;;
  *) echo "$*" >>"$FAKE/scontrol" ;;
esac
""",
}


@pytest.fixture
def slurm(tmp_path):
    """Starts the script as the job 7, whose tasks end with a code: by themselves, or when they are told to."""
    for name, text in SLURM_PROGRAMS.items():
        _program(tmp_path / "bin" / name, text)
    started = []

    def start(code: int = 0, long: bool = False, state: str = "RUNNING", preempted: str = "None") -> subprocess.Popen:
        env = _environment(
            PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            FAKE=tmp_path,
            SLURM_JOB_ID=7,
            SLURM_TASKS_PER_NODE="4(x2)",
            SLURM_GPUS_ON_NODE=4,
            CODE=code,
            LONG="yes" * long,
            STATE=state,
            PREEMPTED=preempted,
        )
        started.append(subprocess.Popen(["bash", SLURM, *AWKWARD], env=env, cwd=ROOT, start_new_session=True))
        return started[-1]

    yield start
    for job in started:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)


def test_slurm_passes_arguments_on(slurm, tmp_path):
    assert slurm().wait(SECONDS) == 0
    assert _lines(tmp_path / "srun") == ["--kill-on-bad-exit=1", sys.executable, "main.py", *AWKWARD]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_slurm_job_that_ends_by_itself_is_over(slurm, tmp_path, code):
    assert slurm(code).wait(SECONDS) == code
    assert not _lines(tmp_path / "scancel") and not _lines(tmp_path / "scontrol")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_slurm_job_that_is_signalled_is_stopped_and_queued_again(slurm, tmp_path, number):
    job = slurm(long=True)
    _wait_until(lambda: _lines(tmp_path / "pid"))
    job.send_signal(number)
    assert job.wait(SECONDS) == 0
    assert _lines(tmp_path / "scancel") == ["--quiet --signal=TERM 7"]
    assert _lines(tmp_path / "signals") == ["TERM"]
    assert _lines(tmp_path / "scontrol") == ["requeue 7"]


@pytest.mark.parametrize(
    "code, state, again",
    [
        (143, "RUNNING", True),  # stopped before main.py could save: it continues from the checkpoint before
        (2, "RUNNING", False),  # the same fault would come again
        (0, "CANCELLED", False),  # by somebody
        (0, "COMPLETING", False),
    ],
)
def test_which_signalled_slurm_jobs_are_queued_again(slurm, tmp_path, code, state, again):
    job = slurm(code, long=True, state=state)
    _wait_until(lambda: _lines(tmp_path / "pid"))
    job.send_signal(signal.SIGUSR1)
    assert job.wait(SECONDS) == code
    assert _lines(tmp_path / "scontrol") == ["requeue 7"] * again


def test_slurm_job_whose_tasks_alone_were_told_of_a_preemption(slurm, tmp_path):
    assert slurm(preempted="2026-07-01T00:00:00").wait(SECONDS) == 0
    assert _lines(tmp_path / "scontrol") == ["requeue 7"]


def test_slurm_wants_a_task_for_each_gpu():
    found = _run(SLURM, *AWKWARD, SLURM_JOB_ID=7, SLURM_TASKS_PER_NODE="1(x2)", SLURM_GPUS_ON_NODE=8)
    assert found.returncode == 2
    assert "8 GPU(s) a node for 1 task(s)" in found.stderr and len(found.stderr.splitlines()) == 1


def test_slurm_dry_run_is_what_would_be_called():
    found = _run(SLURM, "--dry-run", *AWKWARD, PATH="/nowhere", SLURM_JOB_ID=7, SLURM_CPUS_PER_TASK=16)
    assert [shlex.split(line) for line in found.stdout.splitlines()] == [
        ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=16", sys.executable, "main.py", *AWKWARD],
        ["scancel", "--quiet", "--signal=TERM", "7"],
        ["scontrol", "requeue", "7"],
    ]


def test_slurm_directives_come_before_the_first_command():
    text = SLURM.read_text().splitlines()
    first = next(i for i, line in enumerate(text) if line and not line.startswith("#"))
    directives = {line.removeprefix("#SBATCH ") for line in text[:first] if line.startswith("#SBATCH ")}
    assert directives >= {"--requeue", "--signal=B:USR1@180", "--open-mode=append"}
    assert not any(line.startswith("#SBATCH") for line in text[first:])


# Docker


def _instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: each as its word and the rest, on one line."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def test_hadolint():
    found = subprocess.run([_linter("hadolint"), DOCKERFILE], capture_output=True, text=True)
    assert not found.returncode, found.stdout


@pytest.mark.parametrize("variant, wanted", [("cpu", "jax"), ("cuda", "jax[cuda13]"), ("tpu", None)])
def test_docker_variants(tmp_path, variant, wanted):
    _program(tmp_path / "pip", 'echo "$@"')
    (command,) = [rest for word, rest in _instructions() if word == "RUN" and "pip" in rest]
    env = _environment(VARIANT=variant, PATH=f"{tmp_path}:{os.environ['PATH']}")
    found = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=env)
    if wanted is None:
        assert found.returncode == 2 and "use cpu or cuda" in found.stderr
    else:
        assert found.stdout.split()[-3:] == ["-r", "requirements.txt", wanted]


def test_docker_image():
    words = [word for word, _ in _instructions()]
    said = {word: rest for word, rest in _instructions()}  # the last of each
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", said["FROM"])
    assert json.loads(said["ENTRYPOINT"]) == ["python", "main.py"]  # no shell, which would keep signals to itself
    assert int(said["USER"]) > 0
    assert words[words.index("COPY") :] == ["COPY", "ARG", "RUN", "COPY", "USER", "ENTRYPOINT"]


def test_docker_sees_the_program_and_nothing_else():
    first, *rest = [line for line in _lines(ROOT / ".dockerignore") if not line.startswith("#")]
    let_in = {line[1:] for line in rest if line.startswith("!")}
    assert first == "*"
    assert let_in == {"requirements.txt", "main.py", "sgflow_jax", "eval", "configs", "LICENSE"}
    assert all((ROOT / name).exists() for name in let_in)
