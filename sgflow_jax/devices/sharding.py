"""Placement of arrays on devices. The mesh has two axes: batches are split over "data" and "fsdp", parameters over
"fsdp" alone (fully sharded data parallelism: ZeRO, Rajbhandari et al. 2020). docs/scaling.md explains it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sgflow_jax.interfaces import InputError

AXES = ("data", "fsdp")
MIN_SHARDED = 2**12  # elements; smaller arrays are cheaper to replicate than to gather


def mesh(data: int = -1, fsdp: int = 1) -> Mesh:
    """A data x fsdp grid of all devices of all processes; -1 for one of the two means the remaining devices.

    InputError if the devices do not form such a grid.
    """
    # Auto: the compiler shards intermediate arrays. With explicit axes, convolutions reject sharded parameters.
    return jax.make_mesh(_grid(jax.device_count(), data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def _grid(devices: int, data: int, fsdp: int) -> tuple[int, int]:
    given = f"config.mesh.data is {data} and config.mesh.fsdp is {fsdp}"
    if min(data, fsdp) < -1 or 0 in (data, fsdp) or data == fsdp == -1:
        raise InputError(f"{given}: use positive integers, or -1 (the remaining devices) for one of them")
    if data == -1:
        data = max(devices // fsdp, 1)
    elif fsdp == -1:
        fsdp = max(devices // data, 1)
    if data * fsdp != devices:
        raise InputError(f"{given}, but there are {devices} device(s): use numbers whose product is {devices}")
    return data, fsdp


def mesh_of(tree) -> Mesh:
    """The mesh of the arrays of a tree; the mesh of all devices for arrays without one."""
    shardings = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(tree))
    return next((s.mesh for s in shardings if isinstance(s, NamedSharding)), None) or mesh()


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """An array split over all devices along `axis`: a batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXES))


def spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Splits a trained array over fsdp devices along its largest dimension divisible by fsdp (of equals, the last).
    Arrays without one, or with fewer than MIN_SHARDED elements, are replicated."""
    able = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not able or np.prod(shape) < MIN_SHARDED:
        return PartitionSpec()
    axis = max(able, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * axis, "fsdp")


def of_state(mesh: Mesh, tree):
    """The sharding of each array (or shape) in a tree of parameters, their average or the optimiser's state."""
    return jax.tree.map(lambda a: NamedSharding(mesh, spec(a.shape, mesh.shape["fsdp"])), tree)


def searched() -> bool:
    """Whether JAX reruns a function that returned NaN or infinity to find the operation (jax_debug_nans,
    jax_debug_infs), which needs its arguments again."""
    return jax.config.jax_debug_nans or jax.config.jax_debug_infs


def donated(*arguments: int) -> tuple[int, ...]:
    """The donate_argnums of a jitted function: none if JAX may rerun it (`searched`)."""
    return () if searched() else arguments


def gather(mesh: Mesh, tree):
    """Inside a compiled function, gathers each array whole on every device.

    Otherwise the compiler gathers a parameter for each use (forward, tangent, backward) or moves activations.
    """
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def to_devices(tree, sharding: NamedSharding):
    """Builds global arrays from each process's rows of a batch (NumPy arrays)."""
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), tree)


def check_batch_size(batch_size: int, multiple: int, parts: int, field: str) -> None:
    """InputError unless each of `parts` equal parts of the batch gives every device a multiple of `multiple` examples.

    field: the name of the batch size in the error."""
    needed = jax.device_count() * multiple * parts
    if batch_size < 1 or batch_size % needed:
        reason = f"{jax.device_count()} device(s)"
        reason += f" x groups of {multiple} of the objective" if multiple > 1 else ""
        reason += f" x {parts} of config.train.microbatches" if parts > 1 else ""
        raise InputError(f"{field} is {batch_size}, not divisible by {needed} ({reason}): use a multiple of {needed}")


def process_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The indices, ascending, of the rows of a global batch that this process passes to `to_devices`."""
    # On a TPU torus the devices of one process need not be adjacent, so JAX decides.
    indices = split(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.sort(np.concatenate([np.arange(batch_size)[rows] for rows in indices]))
