"""--mode=sample: examples from a trained run, in several numbers of steps, into one .npz file."""

import io
import os
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from sgflow_jax import build, data, generate, sampling
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError

STEPS = (1, 2, 4, 10)


class Request(NamedTuple):
    """steps: numbers of network calls; None for those of 1, 2, 4, 10 that the run can. method: None for the
    objective's own. seed: of the noise."""

    steps: tuple[int, ...] | None
    num_samples: int
    method: str | None
    seed: int


def sample(workdir: str, config: ml_collections.ConfigDict, out: str, request: Request) -> None:
    """Writes steps_N for each N of request.steps: uint8 [n, H, W, C], or float32 [n, D] for points.

    config must be that of the run. InputError for anything that cannot be, before anything is written.
    """
    net, saved, _ = build.restore(workdir)
    paths.check_same(workdir, saved.to_dict(), config)
    objective = build.objective(saved)
    method = sampling.method_of(objective, request.method)
    target = Path(out)
    if target.suffix != ".npz" or target.is_dir() or not os.access(target.parent, os.W_OK):
        raise InputError(f"--out={out}: use a name that ends in .npz, in a directory that exists and can be written to")
    steps = sampling.choose_calls(objective, method, request.steps, STEPS)  # refuses what cannot be, before any work

    shape = data.shape(saved.data.name)
    arrays = {}
    for n in steps:
        plan = generate.Plan(shape, n, method, request.seed, saved.eval.batch_size, objective.interpolant)
        arrays[f"steps_{n}"] = generate.examples(net, plan, request.num_samples)
    if jax.process_index() == 0:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        paths.write_atomically(target, buffer.getvalue())
