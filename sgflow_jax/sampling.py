"""Sampling: one step after the other over a grid of times. The number of steps is len(times) - 1 and nothing else."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax import flow_map
from sgflow_jax.interfaces import InputError, Net, expand_time
from sgflow_jax.interpolant import Interpolant
from sgflow_jax.objectives.base import Objective
from sgflow_jax.times import Domain


class Renoise(NamedTuple):
    """What "consistency" sampling needs: the path the network was trained on, and a random key for each example [B]."""

    path: Interpolant
    keys: jax.Array

    def at(self, step: jax.Array) -> "Renoise":
        """With the keys of one step."""
        return self._replace(keys=jax.vmap(jax.random.fold_in, (0, None))(self.keys, step))


def _flow_map(net, t, u, x, renoise):
    return flow_map.apply(net, t, u, x)


def _euler(net, t, u, x, renoise):
    return x + expand_time(u - t, x) * net(t, t, x)


def _heun(net, t, u, x, renoise):
    step = expand_time(u - t, x)

    v_t = net(t, t, x)

    v_u = net(u, u, x + step * v_t)

    return x + step * (v_t + v_u) / 2


def _consistency(net, t, u, x, renoise):
    data = flow_map.apply(net, t, jnp.ones_like(t), x)

    noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(renoise.keys)

    return renoise.path.sample(u, noise, data)[0]


_STEPS = {"flow_map": _flow_map, "euler": _euler, "heun": _heun, "consistency": _consistency}
_CALLS_PER_STEP = {"flow_map": 1, "euler": 1, "heun": 2, "consistency": 1}
METHODS = tuple(_STEPS)
MAX_CALLS = 10**6  # their times are one array

# Times as functions of s = i / steps: numpy, in float64, so that the ends are exactly 0 and 1 on every device.
_GRIDS = {
    "uniform": lambda s: s,
    "quadratic": lambda s: 1 - (1 - s) ** 2,
    "cosine": lambda s: (1 - np.cos(np.pi * s)) / 2,
}
GRIDS = tuple(_GRIDS)

# How a network that knows F(t, u, x) on a domain can be sampled; the first unless asked otherwise.
_METHODS = {
    Domain.DIAGONAL: ("euler", "heun"),
    Domain.FORWARD: ("flow_map", "euler", "heun"),
    Domain.BOTH: ("flow_map", "euler", "heun"),
    Domain.DYADIC: ("flow_map", "euler", "heun"),
    Domain.TO_DATA: ("consistency",),
}


def sample(
    net: Net, x0: jax.Array, times: jax.Array, method: str = "flow_map", renoise: Renoise | None = None
) -> jax.Array:
    """Carries x0 [B, ...] from times[0] to times[-1]; returns an array like x0.

    times: [steps + 1], increasing, usually from 0 (noise) to 1 (data).
    method: "flow_map" jumps with f(t, u, x); "euler" and "heun" (Heun's second-order method, two network calls a step)
        integrate the velocity F(t, t, x); "consistency" jumps to the data with f(t, 1, x) and, given `renoise`, returns
        to time u with fresh noise (Song et al. 2023, Algorithm 1).
    """
    _check(method)
    if method == "consistency" and renoise is None:
        raise InputError("consistency sampling returns to noise at every step: pass renoise")
    times = jnp.asarray(times, x0.dtype)

    def body(x, interval):
        return step(net, x, *interval, method, renoise), None

    x, _ = jax.lax.scan(body, x0, (jnp.arange(len(times) - 1), times[:-1], times[1:]))
    return x


def step(
    net: Net, x: jax.Array, index: jax.Array, t: jax.Array, u: jax.Array, method: str, renoise: Renoise | None
) -> jax.Array:
    """Step number `index` of `sample`: carries x [B, ...] from time t to time u, all three scalars."""
    t, u = (jnp.broadcast_to(time, x.shape[:1]) for time in (t, u))
    return _STEPS[method](net, t, u, x, renoise and renoise.at(index))


def method_of(objective: Objective, method: str | None = None) -> str:
    """How a network trained with an objective is sampled: `method` if given, else its own.

    InputError for what it was not trained for.
    """
    allowed = _METHODS[objective.domain]
    if method is None:
        return allowed[0]
    _check(method)
    if method not in allowed:
        raise InputError(
            f"{type(objective).__name__} trains F(t, u, x) for {objective.domain.value} only, so {method} cannot "
            f"sample it: use {' or '.join(allowed)}"
        )
    return method


def check_calls(objective: Objective, method: str, network_calls: int, grid: str = "uniform") -> None:
    """InputError if a network trained with an objective cannot be sampled by `method` in that many network calls, or
    not on that grid."""
    time_grid(network_calls, method, grid)
    counts = objective.step_counts
    if method != "flow_map" or counts is None:
        return
    refusal = f"{type(objective).__name__} trains jumps of certain sizes only, so flow_map cannot sample it "
    if grid != "uniform":
        raise InputError(f"{refusal}on the {grid} grid: use uniform, or the method euler")
    if network_calls not in counts:
        raise InputError(f"{refusal}in {network_calls} steps: use {', '.join(map(str, counts))}, or the method euler")


def choose_calls(
    objective: Objective,
    method: str,
    asked: tuple[int, ...] | None,
    usual: tuple[int, ...],
    grid: str = "uniform",
) -> tuple[int, ...]:
    """The numbers of network calls asked for, all checked; without, those of the usual ones that are possible.

    InputError for one that is not, or when none of the usual ones is.
    """
    if asked is None:
        # When none is possible all are checked, and the first says why.
        asked = possible_calls(objective, method, usual, grid) or usual
    for network_calls in asked:
        check_calls(objective, method, network_calls, grid)
    return asked


def possible_calls(
    objective: Objective, method: str, candidates: tuple[int, ...], grid: str = "uniform"
) -> tuple[int, ...]:
    """Those of the candidates that `check_calls` lets pass."""

    def possible(network_calls):
        try:
            check_calls(objective, method, network_calls, grid)
        except InputError:
            return False
        return True

    return tuple(filter(possible, candidates))


def time_grid(network_calls: int, method: str = "flow_map", grid: str = "uniform") -> jax.Array:
    """The times [steps + 1] from 0 (noise) to 1 (data) that spend exactly `network_calls` calls, at s = i / steps:

    "uniform": t = s.
    "quadratic": t = 1 - (1 - s)^2, short steps near the data, long ones near the noise. It is the quadratic
        sub-sequence of DDIM (Song et al. 2021, appendix D.2), tau_i = c i^2, whose time 0 is the data.
    "cosine": t = (1 - cos(pi s)) / 2, short steps at both ends.

    InputError for another grid, when no number of steps spends so many calls, and for more than MAX_CALLS.
    """
    _check(method)
    if grid not in _GRIDS:
        raise InputError(f"unknown grid {grid!r}: use one of {', '.join(GRIDS)}")
    steps, rest = divmod(network_calls, _CALLS_PER_STEP[method])
    if steps < 1 or rest or network_calls > MAX_CALLS:
        raise InputError(
            f"{method} cannot spend {network_calls} network calls: use a positive multiple of "
            f"{_CALLS_PER_STEP[method]} up to {MAX_CALLS}"
        )
    return jnp.asarray(_GRIDS[grid](np.arange(steps + 1) / steps))


def _check(method: str) -> None:
    if method not in _STEPS:
        raise InputError(f"unknown sampling method {method!r}: use one of {', '.join(METHODS)}")
