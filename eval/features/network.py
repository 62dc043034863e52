"""Runs a feature network over any number of images, in batches over all devices."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax.devices import fetch, sharding
from sgflow_jax.interfaces import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """Features of images: network(images) -> float32 [N, D], the same on every process.

    apply: (params, uint8 [b, H, W, 3]) -> float32 [b, D]; each row depends on its own image alone. params: the
    network's weights. batch_size: images per call on each device.
    """

    apply: Callable[[Any, jax.Array], jax.Array]
    params: Any
    batch_size: int

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C], the same on every process -> float32 [N, D]. C is 3, or 1 for grey (repeated to 3).

        InputError for another shape or dtype, or for no images.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
            raise InputError(
                f"features of {images.dtype} {list(images.shape)}: use uint8 images [N, H, W, C], N >= 1, C 1 or 3"
            )
        # All batches have the one compiled shape: the last is padded with zeros, and the padding dropped.
        devices = jax.device_count()
        size = min(self.batch_size, -(-len(images) // devices)) * devices
        mesh = sharding.mesh()
        split = sharding.split(mesh)
        rows = sharding.process_rows(mesh, size)

        def started():
            for start in range(0, len(images), size):
                batch = images[start : start + size]
                batch = np.pad(batch, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)])
                yield _run(self.apply, self._placed, sharding.to_devices(batch[rows], split))

        return np.concatenate(list(fetch.fetch_ahead(started())))[: len(images)]

    @functools.cached_property
    def _placed(self):
        """The parameters on every device, copied there once."""
        return sharding.to_devices(self.params, sharding.replicated(sharding.mesh()))


@functools.partial(jax.jit, static_argnums=0)
def _run(apply, params, images):
    # By default accelerators round float32 products, which moves features as much as a wrong resize does.
    with jax.default_matmul_precision("highest"):
        return apply(params, jnp.broadcast_to(images, (*images.shape[:3], 3)))
