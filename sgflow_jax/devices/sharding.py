"""Where arrays lie. Two mesh axes: a batch is split over "data" and "fsdp" together, what is trained over "fsdp" alone
(fully sharded data parallelism: Rajbhandari et al. 2020, ZeRO). docs/scaling.md explains it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sgflow_jax.interfaces import InputError

AXES = ("data", "fsdp")
MIN_SHARDED = 2**12  # elements; a smaller array is cheaper to keep whole than to gather


def mesh(data: int = -1, fsdp: int = 1) -> Mesh:
    """All devices of all processes in a grid of data x fsdp; -1 for one of the two is the rest.

    InputError if the devices do not make such a grid.
    """
    # Auto: the compiler lays out what lies between. With explicit axes, convolutions refuse such parameters.
    return jax.make_mesh(_grid(jax.device_count(), data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def _grid(devices: int, data: int, fsdp: int) -> tuple[int, int]:
    given = f"config.mesh.data is {data} and config.mesh.fsdp is {fsdp}"
    if min(data, fsdp) < -1 or 0 in (data, fsdp) or data == fsdp == -1:
        raise InputError(f"{given}: use positive integers, or -1 (the rest of the devices) for one of them")
    if data == -1:
        data = max(devices // fsdp, 1)
    elif fsdp == -1:
        fsdp = max(devices // data, 1)
    if data * fsdp != devices:
        raise InputError(f"{given}, which {devices} device(s) do not make: use numbers whose product is {devices}")
    return data, fsdp


def mesh_of(tree) -> Mesh:
    """The mesh on which the arrays of a tree lie; that of all devices for arrays on none."""
    shardings = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(tree))
    return next((s.mesh for s in shardings if isinstance(s, NamedSharding)), None) or mesh()


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """A batch, an array split over all devices along `axis`."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXES))


def spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """How an array of what is trained lies on fsdp devices: split along its largest dimension that they divide (the
    last of equals); whole if there is none, or if it has fewer than MIN_SHARDED elements."""
    able = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not able or np.prod(shape) < MIN_SHARDED:
        return PartitionSpec()
    axis = max(able, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * axis, "fsdp")


def of_state(mesh: Mesh, tree):
    """A sharding for each array (or shape) of a tree of parameters, their average or the optimiser's state."""
    return jax.tree.map(lambda a: NamedSharding(mesh, spec(a.shape, mesh.shape["fsdp"])), tree)


def searched() -> bool:
    """Whether JAX, after a function gave nan or infinity, calls it again to find the operation (jax_debug_nans,
    jax_debug_infs): jitted, and with arguments that are still there."""
    return jax.config.jax_debug_nans or jax.config.jax_debug_infs


def donated(*arguments: int) -> tuple[int, ...]:
    """The numbers of the arguments a jitted function may overwrite: none where it may be `searched`."""
    return () if searched() else arguments


def gather(mesh: Mesh, tree):
    """Inside a compiled function: the whole of each array on every device.

    Left to itself the compiler gathers a parameter anew for each use (forwards, along the tangent, backwards), or
    moves activations instead.
    """
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def to_devices(tree, sharding: NamedSharding):
    """Each process's share of a batch (numpy arrays) as global arrays."""
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)


def check_batch_size(batch_size: int, multiple: int, parts: int, field: str) -> None:
    """InputError unless the batch splits into `parts`, each over the devices, with a multiple of `multiple` examples
    on each."""
    needed = jax.device_count() * multiple * parts
    if batch_size < 1 or batch_size % needed:
        reason = f"{jax.device_count()} device(s)"
        reason += f" x groups of {multiple} of the objective" if multiple > 1 else ""
        reason += f" x {parts} of config.train.microbatches" if parts > 1 else ""
        raise InputError(f"{field} is {batch_size}, not divisible by {needed} ({reason}): use a multiple of {needed}")


def process_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The places, in a global batch, of the rows that this process provides to `to_devices`, in order."""
    # Asked of JAX: on a torus of TPUs the devices of one process need not lie next to each other.
    indices = split(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.sort(np.concatenate([np.arange(batch_size)[rows] for rows in indices]))
