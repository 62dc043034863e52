"""How far a trained map is from the exact one: python -m eval.map_error --workdir=DIR, for data whose law is known."""

import jax
import jax.numpy as jnp
from absl import flags

from sgflow_jax import build, cli, data, flow_map
from sgflow_jax.interfaces import MAX_SEED, InputError


def map_error(workdir: str, num_samples: int = 20_000, seed: int = 0) -> dict[str, float]:
    """Root mean square errors against the exact flow map, in units of x.

    one_jump: of f(0, 1, x) over x ~ N(0, I). all_jumps: of f(t, u, x) over uniform t < u and x distributed as x_t.
    InputError if the data set has no exact map.
    """
    net, config, _ = build.restore(workdir)
    oracle = data.oracle(config.data.name)
    if oracle is None:
        raise InputError(f"--workdir={workdir}: the exact map of {config.data.name} is not known; use mixture1d")
    key_x, key_t = jax.random.split(jax.random.key(seed))
    x0 = jax.random.normal(key_x, (num_samples, *data.shape(config.data.name)))
    zero, one = jnp.zeros(num_samples), jnp.ones(num_samples)
    t, u = jnp.sort(jax.random.uniform(key_t, (2, num_samples)), axis=0)

    def rmse(t, u, x):
        error = flow_map.apply(net, t, u, x) - oracle.flow_map(t, u, x)
        return float(jnp.sqrt(jnp.mean(error**2)))

    return {"one_jump": rmse(zero, one, x0), "all_jumps": rmse(t, u, oracle.flow_map(zero, t, x0))}


def define_flags() -> None:
    """Only for the program: two modules with the same flags could not be imported together otherwise."""
    flags.DEFINE_string("workdir", None, "Directory of a trained run.")
    flags.DEFINE_integer("num_samples", 20_000, "Points at which the maps are compared.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the points.", lower_bound=0, upper_bound=MAX_SEED)


def main(_):
    given = flags.FLAGS
    cli.require(workdir=given.workdir)
    cli.start_jax()
    for name, value in map_error(given.workdir, given.num_samples, given.seed).items():
        print(f"RMSE, {name}: {value:.4f}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
