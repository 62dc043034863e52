"""scripts/slurm.sbatch, with stand-ins for Slurm's programs."""

import os
import shlex
import signal
import subprocess
import sys

import pytest

from tests.commands import AWKWARD, ROOT, SECONDS, SLURM, environment, lines, program, run, wait_until

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
        program(tmp_path / "bin" / name, text)
    started = []

    def start(code: int = 0, long: bool = False, state: str = "RUNNING", preempted: str = "None") -> subprocess.Popen:
        env = environment(
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
    assert lines(tmp_path / "srun") == ["--kill-on-bad-exit=1", sys.executable, "main.py", *AWKWARD]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_slurm_job_that_ends_by_itself_is_over(slurm, tmp_path, code):
    assert slurm(code).wait(SECONDS) == code
    assert not lines(tmp_path / "scancel") and not lines(tmp_path / "scontrol")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_slurm_job_that_is_signalled_is_stopped_and_queued_again(slurm, tmp_path, number):
    job = slurm(long=True)
    wait_until(lambda: lines(tmp_path / "pid"))
    job.send_signal(number)
    assert job.wait(SECONDS) == 0
    assert lines(tmp_path / "scancel") == ["--quiet --signal=TERM 7"]
    assert lines(tmp_path / "signals") == ["TERM"]
    assert lines(tmp_path / "scontrol") == ["requeue 7"]


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
    wait_until(lambda: lines(tmp_path / "pid"))
    job.send_signal(signal.SIGUSR1)
    assert job.wait(SECONDS) == code
    assert lines(tmp_path / "scontrol") == ["requeue 7"] * again


def test_slurm_job_whose_tasks_alone_were_told_of_a_preemption(slurm, tmp_path):
    assert slurm(preempted="2026-07-01T00:00:00").wait(SECONDS) == 0
    assert lines(tmp_path / "scontrol") == ["requeue 7"]


def test_slurm_wants_a_task_for_each_gpu():
    found = run(SLURM, *AWKWARD, SLURM_JOB_ID=7, SLURM_TASKS_PER_NODE="1(x2)", SLURM_GPUS_ON_NODE=8)
    assert found.returncode == 2
    assert "8 GPU(s) a node for 1 task(s)" in found.stderr and len(found.stderr.splitlines()) == 1


def test_slurm_dry_run_is_what_would_be_called():
    found = run(SLURM, "--dry-run", *AWKWARD, PATH="/nowhere", SLURM_JOB_ID=7, SLURM_CPUS_PER_TASK=16)
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
