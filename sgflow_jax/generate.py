"""Generated examples in any number, in batches over all devices. Example i depends on (seed, i) and nothing else."""

import functools
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from sgflow_jax import data, sampling, sharding
from sgflow_jax.models import BoundNet

# Tags that keep the random streams of one seed apart.
_NOISE, _LABEL = range(2)


@functools.partial(jax.jit, static_argnames=("shape", "method"))
def _generate(net: BoundNet, seed, indices, times, shape: tuple[int, ...], method: str):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(indices)
    x0 = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, _NOISE), shape))(keys)
    if net.model.num_classes:
        draw = lambda key: jax.random.randint(jax.random.fold_in(key, _LABEL), (), 0, net.model.num_classes)  # noqa: E731
        net = net.replace(label=jax.vmap(draw)(keys))
    return data.to_examples(sampling.sample(net, x0, times, method))


def batches(
    net: BoundNet, shape: tuple[int, ...], num_samples: int, network_calls: int, method: str, seed: int, batch_size: int
) -> Iterator[np.ndarray]:
    """Yields `num_samples` examples in order, in arrays of at most batch_size: uint8 [b, H, W, C] or float32 [b, D].

    shape: of one example. network_calls: to spend on each (`sampling.uniform_times`). batch_size: over all devices,
    which must divide it. InputError for a method, number of calls or batch size that cannot be.
    """
    times = sampling.uniform_times(network_calls, method)
    sharding.check_batch_size(batch_size, 1, "the batch size for sampling")
    mesh = sharding.mesh()
    rows = sharding.process_rows(batch_size)
    for start in range(0, num_samples, batch_size):
        # The last batch runs past num_samples, so that every batch has the one compiled shape.
        indices = sharding.to_devices(np.arange(start, start + batch_size)[rows], sharding.split(mesh))
        examples = _generate(net, seed, indices, times, shape, method)
        gathered = multihost_utils.process_allgather(examples, tiled=True)
        yield np.asarray(gathered)[: num_samples - start]


def examples(*args, **kwargs) -> np.ndarray:
    """As `batches`, in one array."""
    return np.concatenate(list(batches(*args, **kwargs)))
