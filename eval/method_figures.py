"""Draws the three figures of docs/method.md on data whose flow map is known exactly.

    python -m eval.method_figures --out=runs/method
    python -m eval.method_figures --out=runs/method --num_steps=200     # a quick look: the maps are not trained yet

Trains two small networks on a Gaussian mixture on the line, with sgflow and with its loss left uncorrected, which takes
about a minute on two CPU cores. Prints their errors against the exact map. Writes paths.png, equations.png and
correction.png.
"""

from pathlib import Path

from absl import flags

from configs import mixture1d
from eval.exact import controls, line, method_plots
from sgflow_jax import build, cli, in_memory, terminal
from sgflow_jax.files import disk
from sgflow_jax.interfaces import MAX_SEED, Net

PER_CALL = 50  # training steps in one call of the device: the network is small


def train(num_steps: int, seed: int) -> dict[str, Net]:
    """The network of configs/mixture1d.py, trained with sgflow and uncorrected. num_steps: a multiple of PER_CALL."""
    config = mixture1d.get_config("sgflow")
    config.seed, config.train.num_steps, config.train.steps_per_dispatch = seed, num_steps, PER_CALL
    sgflow, found = build.objective(config), {}
    shared = {"warmup_steps": sgflow.warmup_steps, "ramp_steps": sgflow.ramp_steps}
    for name, objective in {"sgflow": sgflow, "uncorrected": controls.KeepsNoise(**shared)}.items():
        terminal.say(f"training {name}, {num_steps} steps")
        found[name] = in_memory.train(config, objective)
    return found


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
    x, maps = line.maps(train(num_steps, given.seed))
    found = line.errors(maps)
    disk.write_atomically(out / "correction.png", method_plots.correction(x, maps, found))
    for name, (rmse, distance) in found.items():
        terminal.say(
            f"{name}: RMSE of f(0, 1, x) {rmse:.3f}, 1-Wasserstein distance of one-step samples {distance:.3f}"
        )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
