"""Errors of a learned flow map against the exact one."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import scipy.stats

from sgflow_jax import build, data, flow_map, generate, sampling
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective
from sgflow_jax.times import Domain

PATH_STEPS = 4
PROJECTIONS = 64


class Targets(NamedTuple):
    """What the exact map gives, for errors to be measured against: float32 arrays.

    noise [N, D]: x at time 0. path [PATH_STEPS, N, D]: its exact positions at PATH_STEPS uniform times up to 1.
    t, u [N] and start, end [N, D]: jumps between uniform times t < u from points distributed as x_t. data [N, D]: the
    exact map of other noise.
    """

    noise: np.ndarray
    path: np.ndarray
    t: np.ndarray
    u: np.ndarray
    start: np.ndarray
    end: np.ndarray
    data: np.ndarray


def targets(name: str, interpolant: str = "linear", num_samples: int = 20_000, seed: int = 0) -> Targets:
    """The targets of a data set on an interpolant. InputError if its exact map is unknown."""
    oracle = data.oracle(name, interpolant)
    if oracle is None:
        raise InputError(f"the exact map of {name} is unknown: use mixture1d or eight_gaussians")
    key_noise, key_times, key_data = jax.random.split(jax.random.key(seed), 3)
    noise, other = (
        jax.random.normal(key, (num_samples, *data.shape(data.Request(name)))) for key in (key_noise, key_data)
    )
    t, u = jnp.sort(jax.random.uniform(key_times, (2, num_samples)), axis=0)
    zero, one = jnp.zeros(num_samples), jnp.ones(num_samples)

    @jax.jit
    def exact(t, u, x):
        # Small batches, to stay in the processor's cache.
        return jax.lax.map(lambda point: oracle.flow_map(*(a[None] for a in point))[0], (t, u, x), batch_size=1000)

    start = exact(zero, t, noise)
    at_times = [exact(zero, one * k / PATH_STEPS, noise) for k in range(1, PATH_STEPS + 1)]
    found = Targets(noise, np.stack(at_times), t, u, start, exact(t, u, start), exact(zero, one, other))
    return Targets(*map(np.asarray, found))


def score(net: BoundNet, config: ml_collections.ConfigDict, against: Targets, seed: int = 0) -> dict[str, float | None]:
    """Errors against the exact flow map, in units of x; None for what the objective does not train.

    one_jump: root mean square error of f(0, 1, x) (see `jump`) over x ~ N(0, I). all_jumps: of f(t, u, x) over uniform
    t < u and x distributed as x_t. distance_N: sliced 1-Wasserstein distance (in one dimension the distance itself)
    between samples made in N network calls, from noise of `seed`, and as many exact ones. path: root mean square
    distance between the points that sampling visits in PATH_STEPS steps and the exact path from the same noise.
    `generate.NotFinite` if the network gives NaN or infinity.
    """
    objective, count = build.objective(config), len(against.noise)
    learned = jax.jit(functools.partial(jump, net, objective))
    scores = {"one_jump": _rms(learned(0.0, 1.0, against.noise) - against.path[-1]), "all_jumps": None}
    if objective.domain in (Domain.FORWARD, Domain.BOTH, Domain.DIAGONAL):
        scores["all_jumps"] = _rms(learned(against.t, against.u, against.start) - against.end)

    sampler = sampling.Sampler(objective)
    possible = sampler.possible(sampling.CALLS)
    for calls in sampling.CALLS:
        plan = generate.Plan(against.noise.shape[1:], sampler, calls, seed, count)
        made = generate.examples(net, plan, count) if calls in possible else None
        scores[f"distance_{calls}"] = None if made is None else _sliced_wasserstein(made, against.data)

    scores["path"] = None
    if not sampler.possible((PATH_STEPS,)):
        return scores
    times = sampler.times(PATH_STEPS)
    renoise = sampler.renoise(jax.random.split(jax.random.key(seed), count))

    @jax.jit
    def one_step(x, interval, keys):
        return sampling.sample(net, x, interval, sampler.method, renoise._replace(keys=keys))

    visited = [against.noise]
    for k in range(PATH_STEPS):
        visited.append(one_step(visited[-1], times[k : k + 2], renoise.for_step(k).keys))
    scores["path"] = _rms(jnp.stack(visited[1:]) - against.path)
    return scores


def jump(net: BoundNet, objective: Objective, t, u, x: jax.Array) -> jax.Array:
    """f(t, u, x) as the objective trains it: one Euler step if it trains t = u only."""
    if objective.domain is Domain.DIAGONAL:
        return flow_map.apply(lambda t, u, x: net(t, t, x), t, u, x)
    return flow_map.apply(net, t, u, x)


def _rms(error: jax.Array) -> float:
    value = float(jnp.sqrt(jnp.mean(error**2)))
    if not np.isfinite(value):
        raise generate.NotFinite("the map produced NaN or infinity: the training diverged; use an earlier checkpoint")
    return value


def _sliced_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """The mean 1-Wasserstein distance of the projections of two clouds [N, D] on fixed random directions."""
    directions = np.random.default_rng(0).standard_normal((a.shape[1], PROJECTIONS if a.shape[1] > 1 else 1))
    directions /= np.linalg.norm(directions, axis=0)
    distances = map(scipy.stats.wasserstein_distance, (a @ directions).T, (b @ directions).T)
    return float(np.mean(list(distances)))
