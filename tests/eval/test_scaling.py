"""Memory and communication of each device, by hand and from compiled programs."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from eval import scaling
from sgflow_jax.devices import sharding
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.commands import ROOT

# A large one with a dimension that 2 and 4 divide, a large one without, and a small one; and their bytes.
SHAPES = {"kernel": (3, 3, 32, 57), "odd": (95, 97), "bias": (32,)}
KERNEL, ODD, BIAS = 4 * 9 * 32 * 57, 4 * 95 * 97, 4 * 32


def _on(mesh):
    shapes = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in SHAPES.items()}
    where = sharding.of_state(mesh, shapes)
    return {name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where[name]) for name, a in shapes.items()}


@pytest.mark.parametrize("data, fsdp", [(1, 1), (4, 1), (2, 2), (1, 4), (1, 2)])
def test_bytes_on_each_device_by_hand(data, fsdp):
    mesh = scaling.mesh(data, fsdp)
    tree = _on(mesh)
    kept = scaling.bytes_per_device(tree)
    assert kept == KERNEL / fsdp + ODD + BIAS
    # Whole arrays exist once a device, split ones once a group.
    assert mesh.size * kept == data * KERNEL + mesh.size * (ODD + BIAS)

    placed = jax.tree.map(lambda a: jax.device_put(np.zeros(a.shape, a.dtype), a.sharding), tree)
    there = [shard.data.nbytes for a in placed.values() for shard in a.addressable_shards if shard.device.id == 0]
    assert sum(there) == kept


def test_collectives_by_hand():
    found = scaling.expected(_on(scaling.mesh(2, 2)), scaling.mesh(2, 2))
    assert found == [
        ("all-gather", KERNEL, 2),
        ("reduce-scatter", KERNEL, 2),
        ("all-reduce", KERNEL / 2, 2),
        ("all-reduce", ODD + BIAS, 4),
    ]
    assert [each.moved for each in found] == [KERNEL / 2, KERNEL / 2, KERNEL / 2, 1.5 * (ODD + BIAS)]
    assert scaling.expected(_on(scaling.mesh(4, 1)), scaling.mesh(4, 1)) == [("all-reduce", KERNEL + ODD + BIAS, 4)]
    assert scaling.expected(_on(scaling.mesh(1, 1)), scaling.mesh(1, 1)) == []


@pytest.mark.parametrize("data, fsdp", [(4, 1), (2, 2), (1, 4)])
def test_every_layout_moves_the_same_total(data, fsdp):
    mesh = scaling.mesh(data, fsdp)
    moved = sum(each.moved for each in scaling.expected(_on(mesh), mesh))
    assert moved == pytest.approx(2 * 3 / 4 * (KERNEL + ODD + BIAS))


PROGRAM = """
%add (x: f32[], y: f32[]) -> f32[] { ROOT %sum = f32[] add(%x, %y) }
  %all-gather.1 = f32[64,64]{0,1} all-gather(%param.1), channel_id=1, replica_groups=[1,8]<=[8], dimensions={1}
  %copy = f32[64,64]{1,0} fusion(%all-gather.1), kind=kLoop, calls=%wrapped_copy
  ROOT %all-reduce = (f32[3,3]{1,0:T(8,128)S(1)}, bf16[10]{0}, /*index=2*/pred[]) all-reduce(%a, %b, %c), channel_id=2
  %all-reduce.1 = u8[5]{0} all-reduce(%d), channel_id=3, to_apply=%add
  %all-gather.2 = f32[64,64]{0,1} all-gather(%param.2), channel_id=1, replica_groups=[1,8]<=[8], dimensions={1}
  %get = f32[3,3]{1,0} get-tuple-element(%all-reduce), index=0, metadata={op_name="an all-reduce(x)"}
"""


def test_collectives_of_a_program():
    assert scaling.counted(PROGRAM) == {
        "all-gather": {"count": 1, "bytes": 4 * 64 * 64},
        "all-reduce": {"count": 2, "bytes": 4 * 9 + 2 * 10 + 1 + 5},
    }


def test_grids():
    assert scaling.grids((1, 8), (1, 4, -1)) == [(1, 1), (8, 1), (2, 4), (1, 8)]
    with pytest.raises(InputError, match="--fsdp=3,16 divides none of --devices"):
        scaling.grids((1, 8), (3, 16))


@pytest.fixture(scope="module")
def compiled():
    """The rows of a network wide enough to be split, with four examples on each device."""
    config = tiny.mixture("flow_matching")
    config.model.width = 64
    found = {}
    for grid in scaling.grids((1, 2, 4), (1, -1)):
        mesh = scaling.mesh(*grid)
        found[grid] = scaling.from_shapes(config, mesh) | scaling.from_program(config, mesh, 4)
    return found


def _state(row):
    return sum(row[name] for name in scaling.PARTS)


@pytest.mark.slow
def test_weak_scaling_of_a_compiled_step(compiled):
    """With more devices and the same examples on each, copies keep their size and parts shrink, both by the rule."""
    alone = compiled[1, 1]
    for n in (2, 4):
        copies, parts = compiled[n, 1], compiled[1, n]
        assert copies["arguments"] == alone["arguments"] and copies["outputs"] == alone["outputs"]
        assert 0 < alone["arguments"] - parts["arguments"] == _state(alone) - _state(parts)
    assert compiled[1, 4]["arguments"] < compiled[1, 2]["arguments"]
    for row in compiled.values():
        # The state is updated in place.
        assert _state(row) <= row["aliased"] <= row["arguments"] <= _state(row) + 1000


def test_collectives_of_a_compiled_step(compiled):
    assert compiled[1, 1]["collectives"] == {} and not any(compiled[1, 1]["moved"].values())
    for n in (2, 4):
        copies, parts = compiled[n, 1], compiled[1, n]
        assert set(copies["collectives"]) == {"all-reduce"} and set(parts["collectives"]) == {
            "all-gather",
            "all-reduce",
        }
        # Each parameter is gathered once, and nothing else.
        assert parts["collectives"]["all-gather"]["bytes"] == parts["expected"]["all-gather"] > 0
        for row in (copies, parts):
            assert (
                row["collectives"]["all-reduce"]["bytes"]
                >= row["expected"]["all-reduce"] + row["expected"]["reduce-scatter"]
            )


@pytest.mark.parametrize("items", [[], ["0"], ["-2"], ["a"], ["1", ""], ["1.5"]])
def test_invalid_groups_are_rejected(items):
    with pytest.raises(InputError, match="--fsdp=.*: use positive integers, or -1"):
        scaling._fsdp(items)


def test_the_command_uses_the_cpu(tmp_path):
    out = tmp_path / "rows.json"
    small = ["--config=configs/mixture1d.py:flow_matching", "--config.model.width=64", "--config.model.depth=1"]
    command = [sys.executable, "-m", "eval.scaling", *small, "--devices=1,8", "--fsdp=-1", "--compile", f"--out={out}"]
    environment = {**os.environ, "JAX_PLATFORMS": "tpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, eight = json.loads(out.read_text())
    assert (one["devices"], eight["devices"], eight["fsdp"]) == (1, 8, 8) and eight["average"] < one["average"]
    assert eight["collectives"]["all-gather"]["count"] > 0
    assert done.stdout.count("| 8 | 1 | 8 |") == 2 and done.stdout.count("\n| devices | data | fsdp |") == 2
