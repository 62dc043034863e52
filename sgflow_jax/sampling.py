"""Sampling: carries noise to data over a grid of times, one step per interval."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax import flow_map, interpolant
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError, Net, expand_time
from sgflow_jax.interpolant import Interpolant
from sgflow_jax.objectives.base import Objective
from sgflow_jax.times import Domain

CALLS = (1, 2, 4, 10)  # numbers of network calls shown and compared by default
MAX_CALLS = 10**6  # their times are one array
MAX_TIMES = 33  # listed one by one


class Renoise(NamedTuple):
    """For "consistency" sampling: the interpolant the network was trained on, and a random key per example [B]."""

    interpolant: Interpolant
    keys: jax.Array

    def for_step(self, index: jax.Array) -> "Renoise":
        """A copy whose keys are folded with the step number."""
        return self._replace(keys=jax.vmap(jax.random.fold_in, (0, None))(self.keys, index))


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

    return renoise.interpolant.sample(u, noise, data)[0]


class _Method(NamedTuple):
    """domains: where a network must know F(t, u, x) to be sampled this way."""

    step: Callable
    calls_per_step: int
    domains: tuple[Domain, ...]


_JUMPS = (Domain.FORWARD, Domain.BOTH, Domain.DYADIC)
# A network is sampled by the first that its domain allows, unless asked otherwise.
_METHODS = {
    "flow_map": _Method(_flow_map, 1, _JUMPS),
    "euler": _Method(_euler, 1, (Domain.DIAGONAL, *_JUMPS)),
    "heun": _Method(_heun, 2, (Domain.DIAGONAL, *_JUMPS)),
    "consistency": _Method(_consistency, 1, (Domain.TO_DATA,)),
}
METHODS = tuple(_METHODS)

# Times as functions of s = i / steps: numpy, in float64, so that the ends are exactly 0 and 1 on every device.
_GRIDS = {
    "uniform": lambda s: s,
    "quadratic": lambda s: 1 - (1 - s) ** 2,
    "cosine": lambda s: (1 - np.cos(np.pi * s)) / 2,
}
GRIDS = tuple(_GRIDS)


def methods(objective: Objective) -> tuple[str, ...]:
    """The methods by which a network trained with `objective` can be sampled, its own first."""
    return tuple(method for method in METHODS if objective.domain in _METHODS[method].domains)


def sample(
    net: Net, x0: jax.Array, times: jax.Array, method: str = "flow_map", renoise: Renoise | None = None
) -> jax.Array:
    """Carries x0 [B, ...] from times[0] to times[-1]; returns an array like x0.

    times: [steps + 1], increasing, usually from 0 (noise) to 1 (data).
    method: "flow_map" jumps with f(t, u, x); "euler" and "heun" (Heun's second-order method, two network calls per
        step) integrate the velocity F(t, t, x); "consistency" jumps to the data with f(t, 1, x) and, given `renoise`,
        returns to time u with fresh noise (Song et al. 2023, Algorithm 1).

    One program for one number of steps. `generate` calls the same `step` in a program of its own, so that any number
    of steps compiles once.
    """
    _method(method)
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
    return _METHODS[method].step(net, t, u, x, renoise and renoise.for_step(index))


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a network trained with `objective` is sampled.

    method: one of METHODS; by default the first that the objective allows. grid: one of GRIDS, or a list of times, see
    `listed`. guidance: the law of `guidance.Guided`. InputError for an unknown one, or one that the objective did not
    train the network for.
    """

    objective: Objective
    method: str | None = None
    grid: str = "uniform"
    guidance: Guidance = Guidance()

    def __post_init__(self):
        name, domain = type(self.objective).__name__, self.objective.domain
        allowed = methods(self.objective)
        if self.method is None:
            object.__setattr__(self, "method", allowed[0])
        _method(self.method)
        if "," in self.grid:
            object.__setattr__(self, "grid", listed(self.grid))
        else:
            _grid(self.grid)
        if self.method not in allowed:
            raise InputError(
                f"{name} trains F(t, u, x) for {domain.value} only, so {self.method} cannot sample it: "
                f"use {' or '.join(allowed)}"
            )
        if self.guidance.on and self.method == "consistency":
            raise InputError(
                "consistency sampling calls the network where it has no velocity to guide: leave out --guidance, or "
                "train with a teacher and objective.guidance"
            )
        if self._allowed_calls() and self.grid != "uniform":
            raise InputError(
                f"{name} trains jumps of certain sizes only, so flow_map cannot sample it on the {self.grid} grid: "
                "use uniform, or the method euler"
            )

    def times(self, calls: int) -> np.ndarray:
        """The times [steps + 1] that spend `calls` network calls; InputError if the objective, or the method, does not
        allow that number."""
        times = np.asarray(time_grid(calls, self.method, self.grid))
        allowed = self._allowed_calls()
        if allowed and calls not in allowed:
            raise InputError(
                f"{type(self.objective).__name__} trains jumps of certain sizes only, so flow_map cannot sample it in "
                f"{calls} steps: use {', '.join(map(str, allowed))}, or the method euler"
            )
        return times

    def possible(self, candidates: tuple[int, ...]) -> tuple[int, ...]:
        """The numbers of network calls that `times` allows."""

        def allowed(calls):
            try:
                self.times(calls)
            except InputError:
                return False
            return True

        return tuple(filter(allowed, candidates))

    def choose(self, asked: tuple[int, ...] | None, usual: tuple[int, ...] = CALLS) -> tuple[int, ...]:
        """The numbers of network calls asked for; if None, that of the listed times, or the possible ones of the usual.
        InputError for one that is impossible, or if all the usual ones are."""
        if "," in self.grid:
            usual = (self.grid.count(",") * _method(self.method).calls_per_step,)
        # If none is possible, all are checked, and the first says why.
        chosen = (self.possible(usual) or usual) if asked is None else asked
        for calls in chosen:
            self.times(calls)
        return chosen

    def guided(self, net: Net) -> Net:
        """The network as it is called: with guidance, if any. InputError for one without a null class."""
        return self.guidance.of(net)

    def renoise(self, keys: jax.Array) -> Renoise:
        """keys: one per example, [B]."""
        return Renoise(interpolant.make(self.objective.interpolant), keys)

    def _allowed_calls(self) -> tuple[int, ...] | None:
        """None for any number."""
        return self.objective.step_counts if self.method == "flow_map" else None


def time_grid(calls: int, method: str = "flow_map", grid: str = "uniform") -> jax.Array:
    """The times [steps + 1] from 0 (noise) to 1 (data) that spend exactly `calls` network calls, at s = i / steps:

    "uniform": t = s.
    "quadratic": t = 1 - (1 - s)^2, short steps near the data, long ones near the noise. It is the quadratic
        sub-sequence of DDIM (Song et al. 2021, appendix D.2), tau_i = c i^2, whose time 0 is the data.
    "cosine": t = (1 - cos(pi s)) / 2, short steps at both ends.
    times like "0,0.4,1": these, see `listed`.

    InputError for an unknown grid, a number of calls that no number of steps spends, or more than MAX_CALLS.
    """
    calls_per_step = _method(method).calls_per_step
    if "," in grid:
        times = _numbers(grid)
        if calls != (spent := (len(times) - 1) * calls_per_step):
            raise InputError(
                f"the times {grid} spend {spent} network calls with {method}, not {calls}: ask for {spent}"
            )
        return jnp.asarray(times)
    time = _grid(grid)
    steps, rest = divmod(calls, calls_per_step)
    if steps < 1 or rest or calls > MAX_CALLS:
        raise InputError(
            f"{method} cannot spend {calls} network calls: use a positive multiple of {calls_per_step} "
            f"up to {MAX_CALLS}"
        )
    return jnp.asarray(time(np.arange(steps + 1) / steps))


def listed(text: str) -> str:
    """A list of times in its shortest spelling: "0,.40,1" -> "0,0.4,1".

    InputError unless they are 2 to MAX_TIMES numbers that increase from 0 to 1, also in float32.
    """
    return ",".join(np.format_float_positional(time, trim="-") for time in _numbers(text))


def _numbers(text: str) -> np.ndarray:
    try:
        times = np.array([float(part) for part in text.split(",")])
    except ValueError:
        times = np.array([np.nan])
    rises = np.all(np.diff(times.astype(np.float32)) > 0)
    if not 2 <= len(times) <= MAX_TIMES or times[0] != 0 or times[-1] != 1 or not rises:
        shown = text if len(text) < 60 else f"{text[:50]}..."
        raise InputError(f"the times are {shown}: use 2 to {MAX_TIMES} numbers that increase from 0 to 1, like 0,0.4,1")
    return times


def _method(name: str) -> _Method:
    if name not in _METHODS:
        raise InputError(f"unknown sampling method {name!r}: use one of {', '.join(METHODS)}")
    return _METHODS[name]


def _grid(name: str) -> Callable[[np.ndarray], np.ndarray]:
    if name not in _GRIDS:
        raise InputError(f"unknown grid {name!r}: use one of {', '.join(GRIDS)}")
    return _GRIDS[name]
