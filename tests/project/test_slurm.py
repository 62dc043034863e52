"""scripts/slurm.sbatch, with stand-ins for Slurm's programs."""

import os
import shlex
import subprocess
import sys
from signal import SIGKILL, SIGTERM, SIGUSR1

import pytest

from tests.commands import AWKWARD, ROOT, SECONDS, SLURM, environment, lines, program, run, wait_until

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
    """Starts the script as job 7. Its tasks end with a code: by themselves, or when they are signalled."""
    for name, text in SLURM_PROGRAMS.items():
        program(tmp_path / "bin" / name, text)
    started = []

    def start(code: int, long: bool = False, state: str = "RUNNING", preempted: str = "None") -> subprocess.Popen:
        job = {"SLURM_JOB_ID": 7, "SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_GPUS_ON_NODE": 4}
        fake = {"FAKE": tmp_path, "CODE": code, "LONG": "yes" * long, "STATE": state, "PREEMPTED": preempted}
        env = environment(PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", **job, **fake)
        started.append(subprocess.Popen(["bash", SLURM, *AWKWARD], env=env, cwd=ROOT, start_new_session=True))
        return started[-1]

    yield start
    for job in started:
        if job.poll() is None:
            os.killpg(job.pid, SIGKILL)


@pytest.mark.parametrize("code", [0, 2])
def test_job_that_ends_by_itself_is_over(slurm, tmp_path, code):
    assert slurm(code).wait(SECONDS) == code
    assert lines(tmp_path / "srun") == ["--kill-on-bad-exit=1", sys.executable, "main.py", *AWKWARD]
    assert not lines(tmp_path / "scancel") and not lines(tmp_path / "scontrol")


@pytest.mark.parametrize(
    "number, code, state, requeued",
    [
        (SIGUSR1, 0, "RUNNING", True),
        (SIGTERM, 0, "RUNNING", True),
        (SIGUSR1, 143, "RUNNING", True),  # killed before main.py could save: continues from the checkpoint before
        (SIGUSR1, 2, "RUNNING", False),  # the same fault would come again
        (SIGUSR1, 0, "CANCELLED", False),  # by somebody
    ],
)
def test_signalled_job_is_stopped_and_requeued(slurm, tmp_path, number, code, state, requeued):
    job = slurm(code, long=True, state=state)
    wait_until(lambda: lines(tmp_path / "pid"))
    job.send_signal(number)
    assert job.wait(SECONDS) == code
    assert lines(tmp_path / "scancel") == ["--quiet --signal=TERM 7"] and lines(tmp_path / "signals") == ["TERM"]
    assert lines(tmp_path / "scontrol") == ["requeue 7"] * requeued


def test_job_whose_tasks_alone_were_told_of_a_preemption_is_requeued(slurm, tmp_path):
    assert slurm(0, preempted="2026-07-01T00:00:00").wait(SECONDS) == 0
    assert lines(tmp_path / "scontrol") == ["requeue 7"]


def test_fewer_tasks_than_gpus_are_rejected():
    found = run(SLURM, *AWKWARD, SLURM_JOB_ID=7, SLURM_TASKS_PER_NODE="1(x2)", SLURM_GPUS_ON_NODE=8)
    assert found.returncode == 2
    assert "8 GPU(s) per node for 1 task(s)" in found.stderr and len(found.stderr.splitlines()) == 1


def test_dry_run_prints_the_commands():
    found = run(SLURM, "--dry-run", *AWKWARD, PATH="/nowhere", SLURM_JOB_ID=7, SLURM_CPUS_PER_TASK=16)
    assert [shlex.split(line) for line in found.stdout.splitlines()] == [
        ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=16", sys.executable, "main.py", *AWKWARD],
        ["scancel", "--quiet", "--signal=TERM", "7"],
        ["scontrol", "requeue", "7"],
    ]


def test_directives_come_before_the_first_command():
    header = SLURM.read_text().partition("\nset ")[0]
    assert {"--requeue", "--signal=B:USR1@180", "--open-mode=append"} <= set(header.split())
    assert SLURM.read_text().count("\n#SBATCH ") == header.count("\n#SBATCH ")
