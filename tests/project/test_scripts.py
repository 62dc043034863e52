"""What the shell scripts have in common."""

import re
import subprocess

import pytest

from tests.commands import AWKWARD, ROOT, SLURM, TPU_VM, linter, run


def test_shellcheck():
    scripts = [*(ROOT / "scripts").glob("*.s[hb]*"), *(ROOT / ".ci").iterdir()]
    assert {TPU_VM, SLURM, ROOT / "scripts" / "gpu_cost.sh", ROOT / ".ci" / "run"} <= set(scripts)
    found = subprocess.run([linter("shellcheck"), *scripts], capture_output=True, text=True)
    assert not found.returncode, found.stdout


@pytest.mark.parametrize(
    "script, args, named",
    [
        (TPU_VM, ["destroy", "run1"], "destroy"),
        (TPU_VM, ["create", "--dry-run"], "slice"),
        (TPU_VM, ["create", "run1", "--zone", "z1", "--dry-run"], "'--zone'"),
        (TPU_VM, ["create", "run1", "--dry-run", "--", "--config=c.py"], "--"),
        (TPU_VM, ["install", "run1", "--dry-run", "--revision=v1", "--repo=-x"], "--repo"),
        (TPU_VM, ["install", "run1", "--dry-run", "--repo=https://HOST/NAME.git"], "--revision"),
        (TPU_VM, ["run", "run1", "--dry-run"], "--config"),
        (TPU_VM, ["run", "run1", "--dry-run", "--", "--config=c.py", "--workdir=gs://bucket/a"], "gs://bucket/a"),
        (TPU_VM, ["run", "run1", "--dry-run", "--", *AWKWARD, "a\nb"], "line break"),
        (TPU_VM, ["install", "run1", "--dry-run", "--setup=a\nb"], "line break"),
        (SLURM, ["--dry-run"], "--config"),
        (SLURM, AWKWARD, "sbatch"),
    ],
)
def test_faults_are_one_line_and_code_2(script, args, named):
    found = run(script, *args)
    assert (found.returncode, found.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+: [^\n]+\n", found.stderr) and named in found.stderr
