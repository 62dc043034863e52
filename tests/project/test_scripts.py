"""What all scripts that start runs elsewhere have in common."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.commands import AWKWARD, ROOT, SLURM, TPU_VM, linter, run


def _is_shell(file: Path) -> bool:
    return file.is_file() and re.match(rb"#!.*\b(ba|da)?sh\n", file.read_bytes()) is not None


SHELL_SCRIPTS = sorted(filter(_is_shell, [*(ROOT / "scripts").iterdir(), *(ROOT / ".ci").iterdir()]))


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda file: file.name)
def test_shellcheck(script):
    found = subprocess.run([linter("shellcheck"), script], capture_output=True, text=True)
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
    found = run(script, *args)
    assert found.returncode == 2
    assert found.stdout == ""
    assert re.fullmatch(r"error: [^\n]+: [^\n]+\n", found.stderr) and named in found.stderr
