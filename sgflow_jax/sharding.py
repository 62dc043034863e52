"""Devices: one mesh axis, "data". Batches are split over it, parameters are on every device."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
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


def from_first_process(value: Any) -> Any:
    """The first process's value of anything JSON can say, on every process: what they must agree on."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.resize(text, length)  # whatever the others have is not looked at
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def on_first_process(function: Callable[[], Any]) -> Any:
    """What function() gives on the first process; None on the others. Its InputError is raised on all of them, so that
    none waits for one that has left."""
    found, fault = None, None
    if jax.process_index() == 0:
        try:
            found = function()
        except InputError as error:
            fault = error
    if (said := from_first_process(fault and str(fault))) is not None:
        raise InputError(said) from fault
    return found


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
