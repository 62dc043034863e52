"""How much bfloat16 changes gradients.

    python -m eval.rounding --workdir=runs/quickstart --checkpoint=500,1500
    python -m eval.rounding --workdir=runs/quickstart --objectives=sgflow,mean_flow --batches=32

Prints, for each objective, the relative error of a batch's gradient over all parameters when the network computes in
bfloat16 instead of float32, at the parameters of a run and on its data. For comparison it also prints the noise: the
distance of one batch's gradient from the mean over batches.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from eval.tables import store, variants
from sgflow_jax import build, cli, terminal
from sgflow_jax.config import fields
from sgflow_jax.config.check import check_config
from sgflow_jax.interfaces import MAX_SEED, Stream, stream_key
from sgflow_jax.run import access
from sgflow_jax.train_step import TrainState

OBJECTIVES = ("flow_matching", "mean_flow", "sgflow", "sgflow(estimator=split)", "esd", "lsd", "psd")


def gradients(config: ml_collections.ConfigDict, params, batches: int) -> Iterator[np.ndarray]:
    """The gradient of each of the first batches as one vector [parameters], at a step after every warm-up."""
    step, source = build.train_step(config), build.source(config)
    none = jnp.zeros((), jnp.int32)
    gradient = jax.jit(step.gradient)
    for number in range(batches):
        state = TrainState(jnp.int32(variants.TRAINED + number), params, None, None, rollbacks=none, skipped=none)
        batch = source.batch(config.seed, number, config.data.batch_size, slice(None))
        _, found = gradient(params, state, batch, stream_key(config.seed, Stream.TRAINING))
        yield np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(found)])


class Errors(NamedTuple):
    """Rounding errors of gradients.

    each: of every batch's gradient, relative to its norm. shared: of the mean gradient over the batches, the part that
    averaging does not remove. noise: root mean square distance of a batch's exact gradient from their mean (with
    divisor n - 1). shared and noise are relative to the root mean square norm of a batch's exact gradient.
    """

    each: list[float]
    shared: float
    noise: float


def compare(exact: np.ndarray, rounded: np.ndarray) -> Errors:
    """Compares gradients of the same batches, each [batches, parameters] with at least two batches."""
    norm = lambda a: np.linalg.norm(a, axis=-1)  # noqa: E731
    size = np.sqrt(np.mean(norm(exact) ** 2))
    spread = np.sum(norm(exact - exact.mean(axis=0)) ** 2) / (len(exact) - 1)
    return Errors(
        each=(norm(rounded - exact) / norm(exact)).tolist(),
        shared=float(norm((rounded - exact).mean(axis=0)) / size),
        noise=float(np.sqrt(spread) / size),
    )


def measure(config: ml_collections.ConfigDict, params, name: str, batches: int) -> Errors:
    """The rounding errors of the objective called `name`."""
    variant = variants.parse(name)
    config = config.copy_and_resolve_references()
    config.objective = fields.get_config(variant.objective).objective
    variant.apply(config)
    found = {}
    for dtype in ("float32", "bfloat16"):
        config.model.dtype = dtype
        check_config(config)
        found[dtype] = np.stack(list(gradients(config, params, batches)))
    return compare(found["float32"], found["bfloat16"])


COLUMNS = {
    "checkpoint": lambda row: str(row["checkpoint"]),
    "objective": lambda row: row["objective"],
    "batches": lambda row: str(len(row["errors"].each)),
    "error, median": lambda row: f"{np.median(row['errors'].each):.2%}",
    "error, worst": lambda row: f"{max(row['errors'].each):.2%}",
    "shared by all": lambda row: f"{row['errors'].shared:.2%}",
    "noise of one batch": lambda row: f"{row['errors'].noise:.0%}",
}


def define_flags() -> None:
    cli.define_run("workdir", "Directory of a trained run.")
    flags.DEFINE_list("checkpoint", None, "Checkpoints to use, by step; the newest by default.")
    flags.DEFINE_list("objectives", list(OBJECTIVES), "Objectives or variants like 'psd(split=uniform)'.")
    flags.DEFINE_integer("batches", 32, "Batches to compare.", 2, MAX_SEED)


def main(_):
    given = flags.FLAGS
    cli.require(workdir=given.workdir)
    cli.start_jax(alone=True)
    names = variants.from_flag(given.objectives)
    found = []
    for step in cli.integers("checkpoint", given.checkpoint, 1) or (None,):
        opened = access.open(given.workdir, step, "raw")
        params = opened.net().params
        for name in names:
            errors = measure(opened.config, params, name, given.batches)
            found.append({"checkpoint": opened.step, "objective": name, "errors": errors})
    terminal.say(store.markdown(COLUMNS, found))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
