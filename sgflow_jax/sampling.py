"""Sampling: one scan over a grid of times. The number of steps is len(times) - 1 and nothing else."""

import jax
import jax.numpy as jnp

from sgflow_jax import flow_map
from sgflow_jax.interfaces import InputError, Net, expand_time


def _euler(net, t, u, x):
    return x + expand_time(u - t, x) * net(t, t, x)


def _heun(net, t, u, x):
    step = expand_time(u - t, x)

    v_t = net(t, t, x)

    v_u = net(u, u, x + step * v_t)

    return x + step * (v_t + v_u) / 2


_STEPS = {"flow_map": flow_map.apply, "euler": _euler, "heun": _heun}
_CALLS_PER_STEP = {"flow_map": 1, "euler": 1, "heun": 2}
METHODS = tuple(_STEPS)


def sample(net: Net, x0: jax.Array, times: jax.Array, method: str = "flow_map") -> jax.Array:
    """Carries x0 [B, ...] from times[0] to times[-1]; returns an array like x0.

    times: [steps + 1], increasing, usually from 0 (noise) to 1 (data).
    method: "flow_map" jumps with f(t, u, x); "euler" and "heun" (Heun's second-order method, two network calls a step)
        integrate the velocity F(t, t, x).
    """
    _check(method)
    times = jnp.asarray(times, x0.dtype)

    def step(x, interval):
        t, u = (jnp.broadcast_to(time, x.shape[:1]) for time in interval)
        return _STEPS[method](net, t, u, x), None

    x, _ = jax.lax.scan(step, x0, (times[:-1], times[1:]))
    return x


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
