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

from tests.commands import AWKWARD, TPU_VM, environment, lines, program, run, wait_until

TPU = ["gcloud", "compute", "tpus", "tpu-vm"]
PLACE = ["--zone=z1", "--project=p1"]
CALLS = {
    "create": ["create"],
    "install": ["ssh"],
    "run": ["ssh"],
    "resume": ["describe", "delete", "create", "ssh", "ssh"],
    "status": ["describe", "ssh"],
    "stop": ["ssh"],
    "delete": ["delete"],
}


def _dry_run(*args: str, **env) -> list[list[str]]:
    """The words of each command, on a machine without gcloud or any other program."""
    found = run(TPU_VM, *args[:2], "--dry-run", *args[2:], PATH="/nowhere", **env)
    assert not found.returncode, found.stderr
    return [shlex.split(line) for line in found.stdout.splitlines()]


def test_dry_run_prints_the_calls():
    said = run(TPU_VM, "--help").stdout
    for command, calls in CALLS.items():
        assert f"\n  {command} " in said
        main = ["--", *AWKWARD] if command in ("run", "resume") else []
        found = _dry_run(command, "run1", *PLACE, "--repo=https://HOST/a name.git", "--revision=v1", *main)
        assert [line[:9] for line in found] == [[*TPU, call, "run1", "--quiet", *PLACE] for call in calls]
        assert all("--worker=all" in line for line in found if line[4] == "ssh")


def test_create_takes_options_or_environment_variables():
    (found,) = _dry_run("create", "run1", *PLACE, "--accelerator=v6e-16", "--spot")
    assert found[9:] == ["--accelerator-type=v6e-16", "--version=v2-alpha-tpuv6e", "--spot"]
    (found,) = _dry_run("create", "run1", SGFLOW_ACCELERATOR="v5p-8", SGFLOW_TPU_VERSION="other")
    assert found[7:] == ["--accelerator-type=v5p-8", "--version=other"]


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
# A worker's: makes a .venv whose pip writes down its arguments.
PYTHON3 = f"""
if [ "$2" = uv ]; then
  mkdir -p .venv/bin && ln -s {sys.executable} .venv/bin/python
  printf '#!/usr/bin/env bash\\nprintf "%%s\\\\n" "$@" >pip' >.venv/bin/pip && chmod +x .venv/bin/pip
fi
"""
# Prints its version, writes down its arguments, and saves when told to stop.
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
        self.folder, self._repo = folder, folder / "a repository"
        program(folder / "bin" / "gcloud", GCLOUD)
        program(folder / "bin" / "python3", PYTHON3)
        self.setup = f"mkdir -p '{folder}/a share' # as a mount would"
        self.main = [*AWKWARD, f"--workdir={folder}/a share/run"]
        self._repo.mkdir()
        self._git("init", "-q", "-b", "main")
        self.commit("one")

    @property
    def workers(self) -> list[Path]:
        return sorted(self.folder.glob("worker*/sgflow_jax"))

    def commit(self, version: str) -> str:
        """Commits a main.py that prints `version`; returns the commit."""
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
        """Waits until each worker has the file."""
        wait_until(lambda: all((worker / name).exists() for worker in self.workers))

    def _git(self, *args: str) -> str:
        env = environment(GIT_CONFIG_GLOBAL=os.devnull)
        return subprocess.check_output(["git", *args], cwd=self._repo, env=env, text=True).strip()


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
    said = tpu("status").stdout
    assert said.startswith("run1 is READY\n") and said.count(": main.py is running\n") == 2 and said.count("two\n") == 2
    again = tpu("run")
    assert again.returncode == 1 and again.stderr.count("main.py is already running") == 2

    for worker in tpu.workers:  # as when a terminal closes
        os.kill(int((worker / "main.pid").read_text()), signal.SIGHUP)
    assert not tpu("stop").returncode
    tpu.wait_for("saved")
    wait_until(lambda: tpu("status").stdout.count("is not running") == 2)
    assert not tpu("install").returncode
    assert not tpu("run").returncode
    wait_until(lambda: [lines(worker / "main.log") for worker in tpu.workers] == [["two", "three"]] * 2)


@pytest.mark.parametrize(
    "state, calls",
    [("READY", ["describe"]), ("PREEMPTED", CALLS["resume"]), (None, ["describe", "create", "ssh", "ssh"])],
)
def test_resume(tpu, state, calls):
    if state:
        tpu("create")
        (tpu.folder / "calls").unlink()
        (tpu.folder / "state").write_text(f"{state}\n")
    found = tpu("resume")
    assert not found.returncode, found.stderr
    assert lines(tpu.folder / "calls") == calls
    if state != "READY":
        tpu.wait_for("arguments")


def test_resume_leaves_a_slice_under_repair_alone(tpu):
    (tpu.folder / "state").write_text("REPAIRING\n")
    found = tpu("resume")
    assert (found.returncode, len(found.stderr.splitlines())) == (1, 1) and "REPAIRING" in found.stderr
    assert lines(tpu.folder / "calls") == ["describe"]


def test_setup_and_its_shared_directory_are_required(tpu):
    tpu("create")
    tpu.setup = "exit 3"
    assert tpu("install").returncode == 3 and not tpu.workers
    tpu.setup = "true"
    assert not tpu("install").returncode
    found = tpu("run")
    assert found.returncode == 1 and found.stderr.count("see --setup") == 2
    assert not any((worker / "main.pid").exists() for worker in tpu.workers)
