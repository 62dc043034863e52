"""Generated examples in any number, in batches over all devices. Example i depends on (seed, i) and nothing else."""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sgflow_jax import data, interpolant, sampling
from sgflow_jax.devices import fetch, sharding
from sgflow_jax.interfaces import InputError, Stream, stream_key
from sgflow_jax.models import BoundNet

# Tags that keep the random numbers of one example apart.
_NOISE, _LABEL, _RENOISE = range(3)


class NotFinite(InputError):
    """A network whose samples are not numbers."""


class Plan(NamedTuple):
    """How examples are made.

    shape: of one example. network_calls: spent on each. method: of `sampling.METHODS`. seed: of the noise. batch_size:
    examples a network call, over all devices (rounded up to a multiple of their number). path: the name of the
    interpolant, for methods that return to noise. grid: of `sampling.GRIDS`.
    """

    shape: tuple[int, ...]
    network_calls: int
    method: str
    seed: int
    batch_size: int
    path: str = "linear"
    grid: str = "uniform"


class Towards(NamedTuple):
    """Where noise is moved: the share `weight` [b] of the way to the noise of example `other` [b]."""

    other: np.ndarray
    weight: np.ndarray


def batches(net: BoundNet, plan: Plan, num_samples: int) -> Iterator[np.ndarray]:
    """Yields `num_samples` examples in order, uint8 [b, H, W, C] or float32 [b, D], b at most plan.batch_size
    (rounded up to a multiple of the number of devices).

    The same on every process. InputError for a method, grid or number of calls that cannot be, or when the network
    gives numbers that are not finite.
    """
    yield from _in_batches(net, plan, np.arange(num_samples))


def examples(net: BoundNet, plan: Plan, num_samples: int) -> np.ndarray:
    """As `batches`, in one array."""
    return np.concatenate(list(batches(net, plan, num_samples)))


def labels(seed: int, num_samples: int, classes: int) -> np.ndarray:
    """The labels with which `batches` makes the first examples, int32 [num_samples]."""
    return np.asarray(_labels(_keys(seed, np.arange(num_samples)), classes))


def interpolate(net: BoundNet, plan: Plan, pairs: int, positions: int) -> np.ndarray:
    """Examples on the way between others, [pairs, positions, ...]: row k leads from example 2k of `batches` to 2k + 1.

    The noise moves along an arc (`slerp`; Song et al. 2021, appendix D.5), position j the share j / (positions - 1) of
    it. The label, and the noise of methods that return to noise, are those of example 2k all along the row: with
    either, the row does not end at example 2k + 1. The same on every process. InputError as in `batches`.
    """
    pair, position = np.divmod(np.arange(pairs * positions), positions)
    weight = np.linspace(0, 1, positions, dtype=np.float32)[position]
    made = np.concatenate(list(_in_batches(net, plan, 2 * pair, Towards(2 * pair + 1, weight))))
    return made.reshape(pairs, positions, *made.shape[1:])


def slerp(a: jax.Array, b: jax.Array, weight: jax.Array) -> jax.Array:
    """The point at the share `weight` of the way from a to b, arrays of one shape, by spherical linear interpolation
    (Shoemake 1985): of vectors of one norm, all on the way have it. Parallel and opposite vectors have no arc: between
    them the way is straight.
    """
    norm_a, norm_b = jnp.sqrt(jnp.sum(a**2)), jnp.sqrt(jnp.sum(b**2))
    apart, together = norm_b * a - norm_a * b, norm_b * a + norm_a * b
    # Unlike arccos of the cosine, exact to rounding at small angles too.
    angle = 2 * jnp.arctan2(jnp.sqrt(jnp.sum(apart**2)), jnp.sqrt(jnp.sum(together**2)))

    straight = jnp.sin(angle) < 1e-6
    sine = jnp.where(straight, 1.0, jnp.sin(angle))
    of_a = jnp.where(straight, 1 - weight, jnp.sin((1 - weight) * angle) / sine)
    of_b = jnp.where(straight, weight, jnp.sin(weight * angle) / sine)

    return of_a * a + of_b * b


def _in_batches(net: BoundNet, plan: Plan, indices: np.ndarray, towards: Towards | None = None) -> Iterator[np.ndarray]:
    """Yields the examples `indices` [n], their noise moved `towards` others, in batches as `batches` does."""
    times = np.asarray(sampling.time_grid(plan.network_calls, plan.method, plan.grid))
    # Every batch has the one compiled shape; the last is filled up with its last example and cut.
    size = min(plan.batch_size, len(indices))
    size += -size % jax.device_count()
    mesh = sharding.mesh_of(net.params)
    split = sharding.split(mesh)
    if mesh.shape["fsdp"] > 1:
        # Waited for: on CPUs, collectives and the programs behind them have been seen to wait for each other.
        net = net.replace(params=jax.block_until_ready(_whole(net.params, mesh)))
    starts = range(0, len(indices), size)

    def started():
        for start in starts:
            rows = np.minimum(np.arange(start, start + size), len(indices) - 1)[sharding.process_rows(mesh, size)]
            which = sharding.to_devices(jax.tree.map(lambda a, rows=rows: a[rows], (indices, towards)), split)
            yield _made(net, plan, which, times)

    for start, (examples, finite) in zip(starts, fetch.fetch_ahead(started()), strict=True):
        if not np.all(finite):
            raise NotFinite(
                f"the network gives examples that are not finite in {plan.network_calls} steps of {plan.method}: "
                "its training diverged; use an earlier checkpoint or train again"
            )
        yield examples[: len(indices) - start]


def _made(net: BoundNet, plan: Plan, which: tuple[jax.Array, Towards | None], times: np.ndarray):
    """What `_finish` gives of a batch, dispatched. Any number of steps runs the same compiled programs."""
    classes = net.model.num_classes
    x, label, keys = _start(plan.seed, *which, plan.shape, classes)
    if classes:
        net = net.replace(label=label)
    for index, (t, u) in enumerate(itertools.pairwise(times)):
        x = _step(net, x, index, t, u, keys, plan.method, plan.path)
    return _finish(x)


@functools.partial(jax.jit, static_argnames="mesh")
def _whole(params, mesh: Mesh):
    """The parameters, gathered once, and not by each step anew."""
    return sharding.gather(mesh, params)


@functools.partial(jax.jit, static_argnames=("shape", "classes"))
def _start(seed, indices, towards, shape: tuple[int, ...], classes: int):
    """Of the examples `indices` [b]: their noise [b, ...], labels [b] (None without classes), and keys [b] for methods
    that return to noise."""

    def noise(keys):
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, _NOISE), shape, jnp.float32))(keys)

    keys = _keys(seed, indices)
    x0 = noise(keys)
    if towards is not None:
        x0 = jax.vmap(slerp)(x0, noise(_keys(seed, towards.other)), towards.weight)
    renoise_keys = jax.vmap(lambda key: jax.random.fold_in(key, _RENOISE))(keys)
    return x0, _labels(keys, classes) if classes else None, renoise_keys


def _keys(seed, indices):
    """One for each example, [b]."""
    key = stream_key(seed, Stream.SAMPLING)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)


def _labels(keys, classes: int):
    return jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, _LABEL), (), 0, classes))(keys)


@functools.partial(jax.jit, static_argnames=("method", "path"), donate_argnums=sharding.donated(1))
def _step(net: BoundNet, x, index, t, u, keys, method: str, path: str):
    return sampling.step(net, x, index, t, u, method, sampling.Renoise(interpolant.make(path), keys))


@jax.jit
def _finish(x1):
    """x1 as examples [b, ...], and whether each is finite, [b] (rounding to uint8 would hide it)."""
    return data.to_examples(x1), jnp.all(jnp.isfinite(x1), axis=tuple(range(1, x1.ndim)))
