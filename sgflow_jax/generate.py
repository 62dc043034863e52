"""Generates any number of examples, in batches over all devices. Example i depends on (seed, i) alone."""

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
from sgflow_jax.interfaces import InputError, Net, Stream, stream_key
from sgflow_jax.models import BoundNet

# Tags that keep the random numbers of one example apart.
_NOISE, _LABEL, _RENOISE = range(3)


class NotFinite(InputError):
    """Sampling produced NaN or infinity."""


class Plan(NamedTuple):
    """How examples are made.

    shape: of one example. calls: network calls spent on each. seed: of the noise. batch_size: examples per network
    call, over all devices (rounded up to a multiple of their number). labels: int32, of every example; None for a
    network without labels.
    """

    shape: tuple[int, ...]
    sampler: sampling.Sampler
    calls: int
    seed: int
    batch_size: int
    labels: np.ndarray | None = None


class Towards(NamedTuple):
    """Moves noise by the share `weight` [b] of the way to the noise of example `other` [b]."""

    other: np.ndarray
    weight: np.ndarray


def batches(net: BoundNet, plan: Plan, num_samples: int) -> Iterator[np.ndarray]:
    """Yields `num_samples` examples in order, uint8 [b, H, W, C] or float32 [b, D], b at most plan.batch_size
    (rounded up to a multiple of the number of devices).

    The same on every process. InputError for a number of calls that the sampler does not allow; NotFinite.
    """
    yield from _in_batches(net, plan, np.arange(num_samples))


def examples(net: BoundNet, plan: Plan, num_samples: int) -> np.ndarray:
    """All examples of `batches` in one array."""
    return np.concatenate(list(batches(net, plan, num_samples)))


def draw_labels(seed: int, num_samples: int, counts: np.ndarray) -> np.ndarray:
    """Labels for the first examples that `batches` makes from this seed, int32 [num_samples], in proportion to counts
    [classes]. Like the noise, label i depends on (seed, i) alone."""
    keys = _keys(seed, np.arange(num_samples))
    uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _LABEL)))(keys)
    cumulative = np.cumsum(counts) / np.sum(counts)
    return np.searchsorted(cumulative[:-1], np.asarray(uniform, np.float64), side="right").astype(np.int32)


def interpolate(net: BoundNet, plan: Plan, pairs: int, positions: int) -> np.ndarray:
    """Interpolates between examples, [pairs, positions, ...]: row k leads from example 2k of `batches` to 2k + 1.

    The noise moves along an arc (`slerp`; Song et al. 2021, appendix D.5), at position j by j / (positions - 1) of it.
    The label, and the noise of methods that return to noise, stay those of example 2k along the row: with either, the
    row does not end at example 2k + 1. The same on every process. InputError as in `batches`.
    """
    pair, position = np.divmod(np.arange(pairs * positions), positions)
    weight = np.linspace(0, 1, positions, dtype=np.float32)[position]
    found = np.concatenate(list(_in_batches(net, plan, 2 * pair, Towards(2 * pair + 1, weight))))
    return found.reshape(pairs, positions, *found.shape[1:])


def slerp(a: jax.Array, b: jax.Array, weight: jax.Array) -> jax.Array:
    """Spherical linear interpolation (Shoemake 1985) from a (weight 0) to b (weight 1), arrays of one shape.

    Keeps the norm if both have the same. Linear for parallel and opposite vectors, which no single arc connects.
    """
    norm_a, norm_b = jnp.sqrt(jnp.sum(a**2)), jnp.sqrt(jnp.sum(b**2))
    difference, total = norm_b * a - norm_a * b, norm_b * a + norm_a * b
    # Unlike arccos of the cosine, exact to rounding at small angles too.
    angle = 2 * jnp.arctan2(jnp.sqrt(jnp.sum(difference**2)), jnp.sqrt(jnp.sum(total**2)))

    straight = jnp.sin(angle) < 1e-6
    sine = jnp.where(straight, 1.0, jnp.sin(angle))
    weight_a = jnp.where(straight, 1 - weight, jnp.sin((1 - weight) * angle) / sine)
    weight_b = jnp.where(straight, weight, jnp.sin(weight * angle) / sine)

    return weight_a * a + weight_b * b


def _in_batches(net: BoundNet, plan: Plan, indices: np.ndarray, towards: Towards | None = None) -> Iterator[np.ndarray]:
    """Yields the examples `indices` [n], their noise moved `towards` others, in batches like those of `batches`."""
    times = plan.sampler.times(plan.calls)
    # Every batch has the one compiled shape; the last is padded with its last example and cut.
    size = min(plan.batch_size, len(indices))
    size += -size % jax.device_count()
    mesh = sharding.mesh_of(net.params)
    split = sharding.split(mesh)
    if mesh.shape["fsdp"] > 1:
        # Gathered once, not in each step. Blocks, as on CPUs collectives and later programs have deadlocked.
        net = net.replace(params=jax.block_until_ready(_gather(net.params, mesh)))
    label = None if plan.labels is None else plan.labels[indices]
    starts = range(0, len(indices), size)

    def dispatch():
        for start in starts:
            rows = np.minimum(np.arange(start, start + size), len(indices) - 1)[sharding.process_rows(mesh, size)]
            which = sharding.to_devices(jax.tree.map(lambda a, rows=rows: a[rows], (indices, towards, label)), split)
            yield _sample_batch(net, plan, which, times)

    for start, (examples, finite) in zip(starts, fetch.fetch_ahead(dispatch()), strict=True):
        if not np.all(finite):
            raise NotFinite(
                f"sampling produced NaN or infinity ({plan.sampler.method}, {plan.calls} network calls): the training "
                "diverged; use an earlier checkpoint or train again"
            )
        yield examples[: len(indices) - start]


def _sample_batch(
    net: BoundNet, plan: Plan, which: tuple[jax.Array, Towards | None, jax.Array | None], times: np.ndarray
):
    """Dispatches one batch; returns the arrays of `to_examples`. Any number of steps runs the same compiled programs,
    unlike `sampling.sample`, whose loop is compiled for each."""
    how, (indices, towards, label) = plan.sampler, which
    x, keys = draw_noise(plan.seed, indices, towards, plan.shape)
    net = how.guided(net.replace(label=label))
    for index, (t, u) in enumerate(itertools.pairwise(times)):
        x = step(net, x, index, t, u, keys, how.method, how.objective.interpolant)
    return to_examples(x)


@functools.partial(jax.jit, static_argnames="mesh")
def _gather(params, mesh: Mesh):
    return sharding.gather(mesh, params)


@functools.partial(jax.jit, static_argnames="shape")
def draw_noise(seed, indices, towards, shape: tuple[int, ...]):
    """For the examples `indices` [b]: noise [b, ...], and keys [b] for methods that return to noise."""

    def noise(keys):
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, _NOISE), shape, jnp.float32))(keys)

    keys = _keys(seed, indices)
    x0 = noise(keys)
    if towards is not None:
        x0 = jax.vmap(slerp)(x0, noise(_keys(seed, towards.other)), towards.weight)
    renoise_keys = jax.vmap(lambda key: jax.random.fold_in(key, _RENOISE))(keys)
    return x0, renoise_keys


def _keys(seed, indices):
    """One per example, [b]."""
    key = stream_key(seed, Stream.SAMPLING)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)


# Static is only what changes the program: a whole Sampler would compile once per objective and grid.
@functools.partial(jax.jit, static_argnames=("method", "name"), donate_argnums=sharding.donated(1))
def step(net: Net, x, index, t, u, keys, method: str, name: str):
    """`sampling.step`, one program for all steps. name: of the interpolant. keys: [b], of `draw_noise`."""
    return sampling.step(net, x, index, t, u, method, sampling.Renoise(interpolant.make(name), keys))


@jax.jit
def to_examples(x1):
    """x1 as examples [b, ...], and whether each is finite, [b] (rounding to uint8 would hide it)."""
    return data.to_examples(x1), jnp.all(jnp.isfinite(x1), axis=tuple(range(1, x1.ndim)))
