"""Where the time of a training step goes on this machine.

    python -m eval.profile --config=configs/quickstart.py:mean_flow --steps=10
    python -m eval.profile --config=configs/cifar10.py --top=15 --out=runs/profile.json

Compiles the step as in training, with random parameters and data (the data set itself is not needed), and runs it
--steps times alone and --steps times under JAX's profiler, which slows it. Prints the share of the time in which the
first device is busy, and that time by category and by XLA instruction.

On a GPU the step runs without training's command buffers (CUDA graphs), which hide the instruction a kernel belongs to.
So the gaps between kernels are longer than in training.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import flags

from eval.machine import trace
from eval.machine.ready_step import Step
from eval.tables import store
from sgflow_jax import __version__, cli, terminal
from sgflow_jax.config import automatic
from sgflow_jax.config.check import check_config
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

WARM_UP = 3  # calls


def profile(config: ml_collections.ConfigDict, steps: int) -> tuple[store.Values, trace.Table]:
    """Profiles `steps` steps, rounded up to whole dispatches.

    The row has "step_ms" without and "traced_step_ms" with the profiler, and "busy", the busy share of the latter.
    InputError if the profiler records no event of the device.
    """
    step, per_call = Step(config), config.train.steps_per_dispatch
    options = {"xla_gpu_enable_command_buffer": ""} if jax.default_backend() == "gpu" else {}
    program = step.lowered.compile(options)
    (state, monitor), inputs = step.first(), step.inputs()

    def seconds(calls: int) -> float:
        nonlocal state, monitor
        jax.block_until_ready(state)
        began = time.perf_counter()
        for _ in range(calls):
            state, monitor = program(state, monitor, step.batch(), *inputs)
        jax.block_until_ready(state)
        return time.perf_counter() - began

    calls = -(-steps // per_call)
    seconds(WARM_UP)
    alone = seconds(calls)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=_options()):
            traced = seconds(calls)
        text = program.as_text()
        (file,) = Path(folder).glob("plugins/profile/*/*.xplane.pb")
        events = trace.read(file, trace.module(text))
    if not events:
        raise InputError(
            f"the profiler recorded no event of the {jax.devices()[0].device_kind}: allow profiling (on NVIDIA, run as "
            "root or set NVreg_RestrictProfilingToAdminUsers=0), or set JAX_PLATFORMS=cpu"
        )
    table = trace.table(events, text)
    done = calls * per_call
    return {
        "objective": config.objective.name,
        "batch_size": config.data.batch_size,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "sgflow_jax": __version__,
        "jax": jax.__version__,
        "steps": done,
        "step_ms": 1e3 * alone / done,
        "traced_step_ms": 1e3 * traced / done,
        "busy": table.busy / 1e9 / traced,
    }, table


def _options() -> jax.profiler.ProfileOptions:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # or every Python call becomes an event
    return options


def as_json(row: store.Values, table: trace.Table) -> dict[str, Any]:
    """The row, the share of the busy time of each category, and every instruction's time and runs a step."""
    steps = row["steps"]
    kernels = [
        {**kernel._asdict(), "nanoseconds": kernel.nanoseconds / steps, "runs": kernel.runs / steps}
        for kernel in table.kernels
    ]
    return {**row, "categories": table.shares(), "kernels": kernels}


def described(row: store.Values, table: trace.Table, top: int) -> str:
    """The tables as Markdown."""
    per_step = row["traced_step_ms"] * row["busy"]  # ms
    categories = {
        "category": lambda pair: pair[0],
        "share of the busy time": lambda pair: f"{pair[1]:.1%}",
        "ms a step": lambda pair: f"{pair[1] * per_step:.2f}",
    }
    kernels = {
        "instruction": lambda kernel: f"`{kernel.name}`",
        "category": lambda kernel: kernel.category,
        "runs a step": lambda kernel: f"{kernel.runs / row['steps']:.3g}",
        "share": lambda kernel: f"{kernel.nanoseconds / table.busy:.1%}",
        "ms a step": lambda kernel: f"{kernel.nanoseconds / 1e6 / row['steps']:.3f}",
        "from": lambda kernel: f"`{kernel.path}`" if kernel.path else "",
    }
    return (
        f"{row['objective']}, {row['batch_size']} examples a step, {row['devices']} {row['device']} device(s), jax "
        f"{row['jax']}: {row['step_ms']:.2f} ms a step, {row['traced_step_ms']:.2f} ms with the profiler, in which the "
        f"device is busy {row['busy']:.1%} and idle {1 - row['busy']:.1%} of the time.\n\n"
        f"{store.markdown(categories, list(table.shares().items()))}\n"
        f"The longest {len(table.kernels[:top])} of {len(table.kernels)} instructions:\n\n"
        f"{store.markdown(kernels, table.kernels[:top])}"
    )


def define_flags() -> None:
    cli.define_config("FILE.py[:OBJECTIVE], like configs/cifar10.py.")
    flags.DEFINE_integer("steps", 10, "Training steps to trace.", 1, 10_000)
    flags.DEFINE_integer("top", 15, "Instructions to list.", 1)
    cli.define_path("out", None, "FILE.json for all numbers.")


def main(_):
    given = flags.FLAGS
    cli.require(config=given.config)
    if given.out:
        disk.check_writable(Path(given.out))
    cli.start_jax(alone=True)
    config, _ = automatic.resolved(given.config)
    check_config(config)
    row, table = profile(config, given.steps)
    terminal.say(described(row, table, given.top))
    if given.out:
        disk.write_atomically(Path(given.out), json.dumps(as_json(row, table), indent=1) + "\n")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
