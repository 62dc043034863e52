"""Memory and communication of a run on each of many devices, computed without having them.

    python -m eval.scaling --config=configs/cifar10.py --devices=1,8,64,256 --fsdp=1,8,64,-1
    python -m eval.scaling --config=configs/quickstart.py --devices=1,8 --compile

Simulates the devices on the CPU. --devices, --fsdp and --batch_per_device replace the config's mesh and batch size.
Uses shapes only; --compile also compiles the training step (without a teacher). docs/scaling.md explains the columns.
"""

import json
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from absl import flags
from jax.sharding import AxisType, Mesh

from eval.machine.ready_step import Step
from eval.tables import store
from sgflow_jax import build, cli, terminal
from sgflow_jax.config import automatic
from sgflow_jax.config.check import check_config
from sgflow_jax.devices import sharding
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

MOST_DEVICES = 4096
PARTS = {"parameters": ("params",), "average": ("average", "more_averages"), "optimiser": ("opt_state",)}
KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


class Collective(NamedTuple):
    """kind: one of KINDS. size: bytes of the whole array, after a gather or before a scatter. group: its devices."""

    kind: str
    size: float
    group: int

    @property
    def moved(self) -> float:
        """Bytes each device sends, and receives, around a ring."""
        return (2 if self.kind == "all-reduce" else 1) * (self.group - 1) / self.group * self.size


def grids(devices: tuple[int, ...], fsdp: tuple[int, ...]) -> list[tuple[int, int]]:
    """The possible grids (data, fsdp) of each number of devices. InputError if there is none."""
    pairs = [(n, n if f == -1 else f) for n in devices for f in fsdp]
    found = list(dict.fromkeys((n // f, f) for n, f in pairs if n % f == 0))
    if not found:
        raise InputError(f"--fsdp={','.join(map(str, fsdp))} divides none of --devices: use -1, or a divisor")
    return found


def mesh(data: int, fsdp: int) -> Mesh:
    """Like `sharding.mesh`, of the first data x fsdp devices."""
    devices = jax.devices()[: data * fsdp]
    return jax.make_mesh((data, fsdp), sharding.AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def bytes_per_device(tree) -> int:
    """The bytes of a tree on one device. Leaves: arrays, or shapes with shardings."""
    return sum(_bytes(a.sharding.shard_shape(a.shape), a.dtype) for a in jax.tree.leaves(tree))


def expected(params, mesh: Mesh) -> list[Collective]:
    """The collectives a step needs by the rule of `sharding.spec`, without scalars.

    Split parameters are gathered once; their gradients are reduce-scattered in a group, then summed over the groups.
    Gradients of whole parameters are summed over all devices.
    """
    groups, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    whole = split = 0
    for a in jax.tree.leaves(params):
        size = _bytes(a.shape, a.dtype)
        if a.sharding.is_fully_replicated:
            whole += size
        else:
            split += size
    wanted = [
        Collective("all-gather", split, fsdp),
        Collective("reduce-scatter", split, fsdp),
        Collective("all-reduce", split / fsdp, groups),
        Collective("all-reduce", whole, mesh.size),
    ]
    return [each for each in wanted if each.size and each.group > 1]


def counted(program: str) -> dict[str, dict[str, int]]:
    """The collectives in the text of a compiled program: for each kind, their number and the bytes of their results."""
    # A TPU's compiler writes an asynchronous one several times, with the same channel.
    channels = {
        (kind, channel): re.findall(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]", results)
        for results, kind, channel in re.findall(rf" = (.*?) ({'|'.join(KINDS)})\(.*?channel_id=(\d+)", program)
    }
    found = defaultdict(lambda: {"count": 0, "bytes": 0})
    for (kind, _), arrays in channels.items():
        found[kind]["count"] += 1
        found[kind]["bytes"] += sum(_hlo_bytes(*array) for array in arrays)
    return dict(found)


def _bytes(shape: tuple[int, ...], dtype) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _hlo_bytes(kind: str, sizes: str) -> int:
    bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])  # as in f32, bf16, u8
    return int(np.prod([int(size) for size in sizes.split(",") if size])) * bits // 8


def from_shapes(config: ml_collections.ConfigDict, mesh: Mesh) -> store.Values:
    """Bytes each device keeps between steps and moves in one."""
    state = build.state_like(config, build.train_step(config), mesh)
    collectives = expected(state.params, mesh)
    return {
        "devices": mesh.size,
        **mesh.shape,
        **{name: bytes_per_device([getattr(state, f) for f in fields]) for name, fields in PARTS.items()},
        "expected": {kind: sum(c.size for c in collectives if c.kind == kind) for kind in KINDS[:3]},
        "moved": {kind: sum(c.moved for c in collectives if c.kind == kind) for kind in KINDS[:3]},
    }


def from_program(config: ml_collections.ConfigDict, mesh: Mesh, batch_per_device: int) -> store.Values:
    """Bytes of the compiled training step on each device, and its collectives."""
    began = time.perf_counter()
    config = config.copy_and_resolve_references()
    config.data.batch_size, config.train.steps_per_dispatch = batch_per_device * mesh.size, 1
    config.teacher.workdir = ""
    program = Step(config, mesh).lowered.compile()
    memory = program.memory_analysis()
    return {
        "batch_per_device": batch_per_device,
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "collectives": counted(program.as_text()),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _mb(value: float) -> str:
    return f"{value / 1e6:,.2f}"


def _kinds(values: dict[str, str]) -> str:
    return ", ".join(f"{kind} {value}" for kind, value in values.items()) or "none"


GRID = {name: lambda row, name=name: str(row[name]) for name in ("devices", "data", "fsdp")}
KEPT = {
    **GRID,
    **{name: lambda row, name=name: _mb(row[name]) for name in PARTS},
    "kept": lambda row: _mb(sum(row[name] for name in PARTS)),
    **{kind: lambda row, kind=kind: _mb(row["moved"][kind]) for kind in KINDS[:3]},
    "moved": lambda row: _mb(sum(row["moved"].values())),
}
COMPILED = {
    **GRID,
    **{name: lambda row, name=name: _mb(row[name]) for name in ("arguments", "outputs", "aliased", "temporary")},
    "expected": lambda row: _kinds({kind: _mb(size) for kind, size in row["expected"].items() if size}),
    "in the program (how many)": lambda row: _kinds(
        {kind: f"{_mb(each['bytes'])} ({each['count']})" for kind, each in row["collectives"].items()}
    ),
}


def _fsdp(items: list[str]) -> tuple[int, ...]:
    """The items of --fsdp: positive integers, or -1."""
    sizes = [int(item) if re.fullmatch(r"\s*(-1|[1-9]\d{0,8})\s*", item) else 0 for item in items]
    if not sizes or 0 in sizes:
        raise InputError(f"--fsdp={','.join(items)}: use positive integers, or -1 for all devices, like --fsdp=1,8,-1")
    return tuple(sizes)


def define_flags() -> None:
    cli.define_config("FILE.py[:OBJECTIVE], like configs/cifar10.py.")
    flags.DEFINE_list("devices", ["1", "8", "64", "256"], "Numbers of devices.")
    flags.DEFINE_list("fsdp", ["1", "8", "64", "-1"], "Devices in a group, as config.mesh.fsdp; -1: all.")
    flags.DEFINE_bool("compile", False, "Compile the training step too; takes minutes for a large network.")
    flags.DEFINE_integer("batch_per_device", 2, "Examples on each device, with --compile.", 1)
    cli.define_path("out", None, "FILE.json for the rows, in bytes.")


def main(_):
    given = flags.FLAGS
    cli.require(config=given.config)
    devices = cli.integers("devices", given.devices, 1, MOST_DEVICES)
    wanted = grids(devices, _fsdp(given.fsdp))
    if given.out:
        disk.check_writable(Path(given.out))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(devices))
    cli.start_jax()
    config, _ = automatic.resolved(given.config)
    config.mesh.data, config.mesh.fsdp = -1, 1
    config.data.batch_size = given.batch_per_device * jax.device_count()
    check_config(config)

    found = []
    for grid in wanted:
        row = from_shapes(config, mesh(*grid))
        if given.compile:
            row.update(from_program(config, mesh(*grid), given.batch_per_device))
            terminal.say(f"data {grid[0]} x fsdp {grid[1]}: compiled in {row['seconds']} s", to_stderr=True)
        found.append(row)
    terminal.say("What each device keeps between steps and moves in one, in MB (10^6 bytes):\n")
    terminal.say(store.markdown(KEPT, found))
    if given.compile:
        terminal.say(f"The compiled step with {given.batch_per_device} examples on each device, in MB:\n")
        terminal.say(store.markdown(COMPILED, found))
    if given.out:
        disk.write_atomically(Path(given.out), json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
