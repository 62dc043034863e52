"""scripts/tpu_vm.sh, with a stand-in for gcloud and a home for each worker."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import (
    AWKWARD,
    TPU_VM,
    environment,
    lines,
    program,
    run,
    wait_until,
)


def _tpu_dry(*args: str, **env) -> list[list[str]]:
    """The words of each command, where there is no gcloud, and no other program either."""
    options = args.index("--") if "--" in args else len(args)
    found = run(TPU_VM, *args[:options], "--dry-run", *args[options:], PATH="/nowhere", **env)
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
    said = run(TPU_VM, "--help").stdout
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
        program(folder / "bin" / "gcloud", GCLOUD)
        program(folder / "bin" / "python3", PYTHON3)
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
        return run(TPU_VM, command, "run1", *install, *main, PATH=path, FAKE=self.folder)

    def wait_for(self, name: str) -> None:
        """Until each worker has the file."""
        wait_until(lambda: all((worker / name).exists() for worker in self.workers))

    @property
    def _repo(self) -> Path:
        return self.folder / "a repository"

    def _git(self, *args: str) -> str:
        self._repo.mkdir(exist_ok=True)
        env = environment(GIT_CONFIG_GLOBAL=os.devnull)
        return (
            subprocess.run(["git", *args], cwd=self._repo, env=env, check=True, capture_output=True)
            .stdout.decode()
            .strip()
        )


@pytest.fixture
def tpu(tmp_path):
    for needed in ("git", "pgrep"):
        shutil.which(needed) or pytest.skip(f"no {needed} here, which the workers of a slice have")
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
    assert lines(tpu.workers[1] / "pip") == ["install", "-q", "-r", "requirements.txt", "jax[tpu]"]

    assert not tpu("run").returncode
    tpu.wait_for("arguments")
    assert [json.loads((worker / "arguments").read_text()) for worker in tpu.workers] == [tpu.main] * 2
    assert [lines(worker / "main.log") for worker in tpu.workers] == [["two"]] * 2
    said = tpu("status").stdout
    assert said.startswith("run1 is READY\n") and said.count(": main.py runs\n") == 2 and said.count("two\n") == 2
    again = tpu("run")
    assert again.returncode == 1 and again.stderr.count("main.py runs already") == 2

    for worker in tpu.workers:  # as when a terminal closes
        os.kill(int((worker / "main.pid").read_text()), signal.SIGHUP)
    assert not tpu("stop").returncode
    tpu.wait_for("saved")
    wait_until(lambda: tpu("status").stdout.count("does not run") == 2)
    assert not tpu("install").returncode
    assert not tpu("run").returncode
    wait_until(lambda: [lines(worker / "main.log") for worker in tpu.workers] == [["two", "three"]] * 2)


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
    assert lines(tpu.folder / "calls") == calls
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
    assert lines(tpu.folder / "calls") == ["describe"]
