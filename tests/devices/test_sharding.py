import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from sgflow_jax.devices import sharding
from sgflow_jax.interfaces import InputError


@pytest.mark.parametrize(
    "shape, fsdp, expected",
    [
        ((3, 3, 64, 128), 8, PartitionSpec(None, None, None, "fsdp")),  # the largest
        ((3, 3, 128, 128), 8, PartitionSpec(None, None, None, "fsdp")),  # the last of equals
        ((3, 3, 128, 66), 8, PartitionSpec(None, None, "fsdp")),  # the largest that 8 divides
        ((3, 3, 66, 66), 8, PartitionSpec()),
        ((128,), 8, PartitionSpec()),  # small
        ((4096,), 8, PartitionSpec("fsdp")),
        ((4096,), 1, PartitionSpec()),
        ((), 8, PartitionSpec()),
    ],
)
def test_arrays_are_split_along_their_largest_divisible_dimension(shape, fsdp, expected):
    assert sharding.spec(shape, fsdp) == expected


@pytest.mark.parametrize("asked, made", [((-1, 1), (4, 1)), ((1, -1), (1, 4)), ((2, 2), (2, 2)), ((-1, 2), (2, 2))])
def test_the_mesh_is_a_grid_of_all_devices(asked, made):
    mesh = sharding.mesh(*asked)
    assert mesh.axis_names == ("data", "fsdp") and mesh.devices.shape == made


@pytest.mark.parametrize("asked", [(-1, -1), (0, 1), (-2, 1), (3, 1), (-1, 3), (8, 1), (-1, 8), (8, -1), (2, 1)])
def test_impossible_grids_are_rejected(asked):
    with pytest.raises(InputError, match="mesh.data is .* and config.mesh.fsdp is .*: use "):
        sharding.mesh(*asked)


def test_batches_are_split_over_both_axes_and_states_over_fsdp():
    mesh = sharding.mesh(2, 2)
    batch = sharding.to_devices({"x": np.arange(8.0).reshape(8, 1)}, sharding.split(mesh))["x"]
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2, 1)}
    np.testing.assert_array_equal(sharding.process_rows(mesh, 8), np.arange(8))

    tree = {"kernel": np.ones((64, 128)), "bias": np.ones(128)}
    placed = jax.device_put(tree, sharding.of_state(mesh, tree))
    assert {shard.data.shape for shard in placed["kernel"].addressable_shards} == {(64, 64)}
    assert placed["bias"].is_fully_replicated and sharding.mesh_of(placed) == mesh
    whole = jax.jit(lambda tree: sharding.gather(mesh, tree))(placed)
    assert whole["kernel"].is_fully_replicated and sharding.mesh_of(tree) == sharding.mesh()
