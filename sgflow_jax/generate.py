"""Generated examples in any number, in batches over all devices. Example i depends on (seed, i) and nothing else."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from sgflow_jax import data, interpolant, sampling, sharding
from sgflow_jax.interfaces import InputError, Stream, stream_key
from sgflow_jax.models import BoundNet

# Tags that keep the random numbers of one example apart.
_NOISE, _LABEL, _RENOISE = range(3)


class NotFinite(InputError):
    """A network whose samples are not numbers."""


class Plan(NamedTuple):
    """How examples are made.

    shape: of one example. network_calls: spent on each, on the uniform grid (`sampling.uniform_times`). method: of
    `sampling.METHODS`. seed: of the noise. batch_size: examples a network call, over all devices (rounded up to a
    multiple of their number). path: the name of the interpolant, for methods that return to noise.
    """

    shape: tuple[int, ...]
    network_calls: int
    method: str
    seed: int
    batch_size: int
    path: str = "linear"


def batches(net: BoundNet, plan: Plan, num_samples: int) -> Iterator[np.ndarray]:
    """Yields `num_samples` examples in order, uint8 [b, H, W, C] or float32 [b, D], b at most plan.batch_size
    (rounded up to a multiple of the number of devices).

    The same on every process. InputError for a method or number of calls that cannot be, or when the network gives
    numbers that are not finite.
    """
    times = sampling.uniform_times(plan.network_calls, plan.method)
    # Every batch has the one compiled shape; the last runs past num_samples and is cut.
    size = min(plan.batch_size, num_samples)
    size += -size % jax.device_count()
    split = sharding.split(sharding.mesh())
    for start in range(0, num_samples, size):
        indices = np.arange(start, start + size)[sharding.process_rows(size)]
        made = _generate(net, plan.seed, sharding.to_devices(indices, split), times, plan.shape, plan.method, plan.path)
        examples, finite = multihost_utils.process_allgather(made, tiled=True)
        if not np.all(finite):
            raise NotFinite(
                f"the network gives examples that are not finite in {plan.network_calls} steps of {plan.method}: "
                "its training diverged; use an earlier checkpoint or train again"
            )
        yield np.asarray(examples)[: num_samples - start]


def examples(net: BoundNet, plan: Plan, num_samples: int) -> np.ndarray:
    """As `batches`, in one array."""
    return np.concatenate(list(batches(net, plan, num_samples)))


@functools.partial(jax.jit, static_argnames=("shape", "method", "path"))
def _generate(net: BoundNet, seed, indices, times, shape: tuple[int, ...], method: str, path: str):
    """Examples `indices` [b], and whether each is finite, [b] (rounding to uint8 would hide it)."""
    key = stream_key(seed, Stream.SAMPLING)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(indices)
    x0 = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, _NOISE), shape))(keys)
    if classes := net.model.num_classes:
        label = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, _LABEL), (), 0, classes))(keys)
        net = net.replace(label=label)
    renoise_keys = jax.vmap(lambda key: jax.random.fold_in(key, _RENOISE))(keys)
    x1 = sampling.sample(net, x0, times, method, sampling.Renoise(interpolant.make(path), renoise_keys))
    return data.to_examples(x1), jnp.all(jnp.isfinite(x1), axis=tuple(range(1, x1.ndim)))
