"""What bfloat16 does to gradients: python -m eval.precision --workdir=DIR [--checkpoint=500,1500].

The relative error of the gradient of a batch, over all parameters, when the network computes in bfloat16 instead of
float32: at the parameters of a run, on its data, for each objective.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from configs import base
from eval import counts, rows, variants
from sgflow_jax import build, cli, terminal
from sgflow_jax.interfaces import MAX_SEED, Stream, stream_key
from sgflow_jax.train_step import TrainState

OBJECTIVES = ("flow_matching", "mean_flow", "sgflow", "sgflow(estimator=split)", "esd", "lsd", "psd")


def gradients(config: ml_collections.ConfigDict, params, batches: int) -> Iterator[np.ndarray]:
    """The gradient of each of the first batches, all parameters in one vector, after every warm-up."""
    step, source = build.train_step(config), build.source(config)
    none = jnp.zeros((), jnp.int32)
    gradient = jax.jit(step.gradient)
    for number in range(batches):
        state = TrainState(jnp.int32(counts.TRAINED + number), params, None, None, rollbacks=none, skipped=none)
        batch = source.batch(config.seed, number, config.data.batch_size, slice(None))
        _, found = gradient(params, state, batch, stream_key(config.seed, Stream.TRAINING))
        yield np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(found)])


def measure(config: ml_collections.ConfigDict, params, name: str, batches: int) -> list[float]:
    """The relative error of each batch's gradient for the objective called `name`."""
    variant = variants.parse(name)
    config = config.copy_and_resolve_references()
    config.objective = base.get_config(variant.objective).objective
    config.objective.update(dict(variant.options))
    found = {}
    for dtype in ("float32", "bfloat16"):
        config.model.dtype = dtype
        build.check(config)
        found[dtype] = list(gradients(config, params, batches))
    return [
        float(np.linalg.norm(half - exact) / np.linalg.norm(exact))
        for exact, half in zip(found["float32"], found["bfloat16"], strict=True)
    ]


COLUMNS = {
    "checkpoint": lambda row: str(row["checkpoint"]),
    "objective": lambda row: row["objective"],
    "error of the gradient": lambda row: ", ".join(f"{error:.2%}" for error in row["errors"]),
}


def define_flags() -> None:
    """Only for the program: two modules with the same flags could not be imported together otherwise."""
    flags.DEFINE_string("workdir", None, "Directory of a trained run.")
    flags.DEFINE_list("checkpoint", None, "Steps of checkpoints; the newest by default.")
    flags.DEFINE_list("objectives", list(OBJECTIVES), "Objectives or variants like 'psd(split=uniform)'.")
    flags.DEFINE_integer("batches", 3, "Batches, an error for each.", 1, MAX_SEED)


def main(_):
    given = flags.FLAGS
    cli.require(workdir=given.workdir)
    cli.start_jax(alone=True)
    names = variants.from_flag(given.objectives)
    found = []
    for step in cli.integers("checkpoint", given.checkpoint, 1) or (None,):
        net, config, step = build.restore(given.workdir, step, ema=False)
        for name in names:
            errors = measure(config, net.params, name, given.batches)
            found.append({"checkpoint": step, "objective": name, "errors": errors})
    terminal.say(rows.markdown(COLUMNS, found))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
