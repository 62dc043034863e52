"""--mode=sample of tiny runs."""

from pathlib import Path

import numpy as np

from sgflow_jax import sample_run
from tests import tiny

REQUEST = sample_run.Request(calls=(2, 1), num_samples=20, method=None, seed=3)


def labelled(workdir: str, out: Path, **changes) -> tuple[list[str], dict[str, np.ndarray]]:
    """The lines, and the arrays of the .npz file, of a run with labels; changes: fields of the request."""
    lines = sample_run.sample(workdir, tiny.labelled(), str(out), REQUEST._replace(**changes))
    with np.load(out) as arrays:
        return lines, dict(arrays)
