"""--dry_run: makes every check of a run and estimates its cost. Writes and trains nothing."""

import json
from typing import NamedTuple

import jax
import ml_collections

from sgflow_jax.display.banner import banner
from sgflow_jax.files import disk
from sgflow_jax.preparation import prepare
from sgflow_jax.run import layout


class Cost(NamedTuple):
    """The cost of one step over all devices. flops: floating-point operations of the gradient. residual_bytes: memory
    kept for the backward pass."""

    flops: float
    residual_bytes: int


def report(config: ml_collections.ConfigDict, workdir: str, cost: Cost) -> str:
    """The resolved configuration, the run's banner, and its memory and operations. InputError as in training.

    cost: of `eval.machine.gradient_cost.gradient_cost`.
    """
    prepared = prepare(config, workdir)
    disk.check_writable(layout.checkpoints(workdir) / "0", layout.metrics_file(workdir))
    state = prepared.like
    parameters = sum(a.size for a in jax.tree.leaves(state.params))
    kept = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(state))
    steps = prepared.config.train.num_steps - prepared.start
    lines = [
        json.dumps(prepared.config.to_dict(), indent=2),
        *banner(prepared, workdir, parameters),
        f"memory      {_bytes(kept)} of parameters, average and optimiser, in {prepared.mesh.shape['fsdp']} part(s)",
        f"            {_bytes(cost.residual_bytes)} kept for the backward pass of a batch",
        f"work        {cost.flops:.3g} floating-point operations a step, {cost.flops * steps:.3g} in {steps:,} steps",
        "dry run     all checks passed; nothing was written",
    ]
    return "\n".join(lines)


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.3g} MB"
