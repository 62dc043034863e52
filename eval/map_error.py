"""Compares a trained map with the exact one, for data whose exact map is known.

    python -m eval.map_error --workdir=runs/line
    python -m eval.map_error --workdir=runs/line --num_samples=100000 --seed=1

Prints the errors of the map, of paths and of samples, at points distributed by the exact law.
"""

from absl import flags

from eval.exact import errors
from sgflow_jax import cli, terminal
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED
from sgflow_jax.run import access


def define_flags() -> None:
    cli.define_run("workdir", "Directory of a trained run.")
    flags.DEFINE_integer("num_samples", 20_000, "Points at which the maps are compared.", 1, MAX_SAMPLES)
    flags.DEFINE_integer("seed", 0, "Seed of the points.", lower_bound=0, upper_bound=MAX_SEED)


def main(_):
    given = flags.FLAGS
    cli.require(workdir=given.workdir)
    cli.start_jax(alone=True)
    opened = access.open(given.workdir)
    config = opened.config
    against = errors.targets(config.data.name, config.objective.interpolant, given.num_samples, given.seed)
    for name, value in errors.score(opened.net(), config, against, given.seed).items():
        terminal.say(f"{name}: " + ("not trained" if value is None else f"{value:.4f}"))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
