"""What the directory of a run holds."""

import json
from pathlib import Path

import jax
import numpy as np

from sgflow_jax import build
from sgflow_jax.run import integrity
from sgflow_jax.run.checkpoint import Checkpoints


def newest(workdir: str | Path) -> int:
    """The step of the newest checkpoint that is sound."""
    with Checkpoints(str(workdir), read_only=True) as checkpoints:
        return checkpoints.find().step


def steps(workdir: str | Path) -> list[int]:
    """The steps that have a checkpoint."""
    return integrity.step_numbers(Path(workdir) / "checkpoints")


def events(workdir: str | Path, kind: str) -> list[dict]:
    rows = [json.loads(line) for line in (Path(workdir) / "events.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == kind]


def assert_equal(a: str | Path, b: str | Path) -> None:
    """Fails unless both runs have the same parameters, averaged and raw."""
    for parameters in ("ema", "raw"):
        left, right = (build.restore_net(str(w), ema=parameters).params for w in (a, b))
        jax.tree.map(np.testing.assert_array_equal, left, right)
