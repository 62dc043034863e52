"""Draws the three figures of docs/method.md on data whose flow map is known exactly.

    python -m eval.method_figures --out=runs/method
    python -m eval.method_figures --out=runs/method --num_steps=200     # a quick look: the maps are not trained yet

Trains two small networks on a Gaussian mixture on the line, with sgflow and with its loss left uncorrected, which takes
about a minute on two CPU cores. Prints their errors against the exact map. Writes paths.png, equations.png and
correction.png.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from scipy.stats import norm

from configs import mixture1d
from eval.exact import controls, method_plots
from sgflow_jax import build, cli, data, flow_map, terminal
from sgflow_jax.files import disk
from sgflow_jax.interfaces import MAX_SEED, Net, Stream, stream_key
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective
from sgflow_jax.train_step import several

PER_CALL = 50  # training steps in one call of the device: the network is small
POINTS = 4001  # of x ~ N(0, 1), at equal shares of its probability


def train(objective: Objective, num_steps: int, seed: int) -> Net:
    """Trains the network of configs/mixture1d.py for num_steps, a multiple of PER_CALL; returns its average.

    Not `trainer.train`: the uncorrected loss is a control, not an objective that a configuration can name.
    """
    config = mixture1d.get_config("sgflow")
    config.train.num_steps, config.seed = num_steps, seed
    step = dataclasses.replace(build.train_step(config), objective=objective)
    source, size = build.source(config), config.data.batch_size

    def batches(first):
        each = [source.batch(seed, first + k, size, slice(None)) for k in range(PER_CALL)]
        return jax.tree.map(lambda *a: np.stack(a), *each)

    state = step.init(stream_key(seed, Stream.PARAMETERS), data.shape(config.data))
    monitor = step.init_monitor(data.batch_like(config.data, size), state)
    advance, key = jax.jit(several(step, PER_CALL)), stream_key(seed, Stream.TRAINING)
    for first in range(0, num_steps, PER_CALL):
        state, monitor = advance(state, monitor, batches(first), key)
    return BoundNet(step.model, state.average)


def compare(num_steps: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(x, maps): POINTS equally likely points of N(0, 1), and f(0, 1, x) of each map there, all [POINTS]."""
    oracle = data.oracle("mixture1d")
    x = norm.ppf((np.arange(POINTS) + 0.5) / POINTS).astype(np.float32)[:, None]
    zero, one = jnp.zeros(POINTS), jnp.ones(POINTS)
    maps = {"exact": oracle.flow_map(zero, one, jnp.asarray(x))}
    sgflow = build.objective(mixture1d.get_config("sgflow"))
    shared = {"warmup_steps": sgflow.warmup_steps, "ramp_steps": sgflow.ramp_steps}
    for name, objective in {"sgflow": sgflow, "uncorrected": controls.KeepsNoise(**shared)}.items():
        terminal.say(f"training {name}, {num_steps} steps")
        maps[name] = flow_map.apply(train(objective, num_steps, seed), 0.0, 1.0, jnp.asarray(x))
    return x[:, 0], {name: np.asarray(f)[:, 0] for name, f in maps.items()}


def errors(maps: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Of each learned map: the RMSE of f(0, 1, x), and the 1-Wasserstein distance of its one-step samples to the data.

    Exact but for the grid: the points are quantiles of the noise, and on the line sorted samples are matched.
    """
    exact = maps["exact"]
    return {
        name: (float(np.sqrt(np.mean((f - exact) ** 2))), float(np.mean(np.abs(np.sort(f) - np.sort(exact)))))
        for name, f in maps.items()
        if name != "exact"
    }


def define_flags() -> None:
    cli.define_path("out", "runs/method", "Directory for the three figures.")
    flags.DEFINE_integer("num_steps", 2000, f"Training steps of each network, rounded up to {PER_CALL}s.", 1, 10**6)
    flags.DEFINE_integer("seed", 0, "Seed of both runs.", 0, MAX_SEED)


def main(_):
    given = flags.FLAGS
    cli.start_jax(alone=True)
    out = Path(given.out)
    disk.write_atomically(out / "paths.png", method_plots.paths())
    disk.write_atomically(out / "equations.png", method_plots.equations())
    num_steps = -(-given.num_steps // PER_CALL) * PER_CALL
    x, maps = compare(num_steps, given.seed)
    found = errors(maps)
    disk.write_atomically(out / "correction.png", method_plots.correction(x, maps, found))
    for name, (rmse, distance) in found.items():
        terminal.say(
            f"{name}: RMSE of f(0, 1, x) {rmse:.3f}, 1-Wasserstein distance of one-step samples {distance:.3f}"
        )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
