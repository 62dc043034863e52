"""Sampling: one scan over a grid of times. The number of steps is len(times) - 1 and nothing else."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

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

    def step(x, interval):
        index, *ends = interval
        t, u = (jnp.broadcast_to(time, x.shape[:1]) for time in ends)
        return _STEPS[method](net, t, u, x, renoise and renoise.at(index)), None

    x, _ = jax.lax.scan(step, x0, (jnp.arange(len(times) - 1), times[:-1], times[1:]))
    return x


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


def check_calls(objective: Objective, method: str, network_calls: int) -> None:
    """InputError if a network trained with an objective cannot be sampled by `method` in that many network calls."""
    uniform_times(network_calls, method)
    counts = objective.step_counts
    if method == "flow_map" and counts is not None and network_calls not in counts:
        raise InputError(
            f"{type(objective).__name__} trains jumps of certain sizes only, so flow_map cannot sample it in "
            f"{network_calls} steps: use {', '.join(map(str, counts))}, or the method euler"
        )


def choose_calls(
    objective: Objective, method: str, asked: tuple[int, ...] | None, usual: tuple[int, ...]
) -> tuple[int, ...]:
    """The numbers of network calls asked for, all checked; without, those of the usual ones that are possible."""
    if asked is None:
        return possible_calls(objective, method, usual)
    for network_calls in asked:
        check_calls(objective, method, network_calls)
    return asked


def possible_calls(objective: Objective, method: str, candidates: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the candidates that `check_calls` lets pass."""

    def possible(network_calls):
        try:
            check_calls(objective, method, network_calls)
        except InputError:
            return False
        return True

    return tuple(filter(possible, candidates))


def uniform_times(network_calls: int, method: str = "flow_map") -> jax.Array:
    """The uniform grid from 0 to 1 that spends exactly `network_calls` calls; InputError when none does."""
    _check(method)
    steps, rest = divmod(network_calls, _CALLS_PER_STEP[method])
    if steps < 1 or rest:
        raise InputError(
            f"{method} cannot spend {network_calls} network calls: use a positive multiple of {_CALLS_PER_STEP[method]}"
        )
    return jnp.linspace(0.0, 1.0, steps + 1)


def _check(method: str) -> None:
    if method not in _STEPS:
        raise InputError(f"unknown sampling method {method!r}: use one of {', '.join(METHODS)}")
