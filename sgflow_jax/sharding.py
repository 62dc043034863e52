"""Devices: one mesh axis, "data". Batches are split over it, parameters are on every device."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sgflow_jax.interfaces import InputError


def mesh() -> Mesh:
    """All devices of all processes, in one axis."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """An array split over the devices along `axis`."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def to_devices(tree, sharding: NamedSharding):
    """Each process's share of a batch (numpy arrays) as global arrays."""
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)


def check_batch_size(batch_size: int, multiple: int, field: str) -> None:
    """InputError unless the batch splits over the devices with a multiple of `multiple` examples on each."""
    needed = jax.device_count() * multiple
    if batch_size < 1 or batch_size % needed:
        reason = f"{jax.device_count()} device(s)" + (
            f" x groups of {multiple} of the objective" if multiple > 1 else ""
        )
        raise InputError(f"{field} is {batch_size}, not divisible by {needed} ({reason}): use a multiple of {needed}")


def process_rows(batch_size: int) -> slice:
    """The rows of a global batch that this process provides."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)
