"""Runs shell scripts with stand-ins for the programs of clusters."""

import os
import shutil
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


def linter(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or pytest.skip(f"no {name}: see requirements.txt")


def environment(**more) -> dict[str, str]:
    """The environment of a user on no cluster, with no option set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SGFLOW_", "CLOUDSDK_"))}
    return kept | {"PYTHON": sys.executable} | {name: str(value) for name, value in more.items()}


def run(script: Path, *args: str, **env) -> subprocess.CompletedProcess:
    # bash by its path, since PATH may be empty.
    command = [shutil.which("bash"), script, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment(**env), cwd=ROOT)


def program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/usr/bin/env bash\n{text}")
    file.chmod(0o755)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def wait_until(true, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.02)
