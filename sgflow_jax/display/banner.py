"""The lines a training run prints at its start and end."""

import shlex
import sys
from pathlib import Path
from typing import Any

import jax
import ml_collections

from sgflow_jax import data, objectives
from sgflow_jax.preparation import Prepared
from sgflow_jax.run import layout
from sgflow_jax.run.metric_log import duration

MANY_KEPT = 100  # warn above this many checkpoints kept for good


def banner(prepared: Prepared, workdir: str, parameters: int) -> list[str]:
    """At most ten lines: what is trained, on what, where, and from which step. parameters: number of the network's."""
    config, train, start = prepared.config, prepared.config.train, prepared.start
    identity = prepared.source.identity()
    model = prepared.step_fn.model
    begins = f"from step {start:,}" if start else "from the beginning"
    shape = data.shape(config.data)
    if len(shape) == 3:
        what = f"{identity['examples']:,} images of {' x '.join(map(str, shape))}, split {identity['split']}"
        what += f", {len(identity['classes'])} classes" if "classes" in identity else ""
    else:
        what = f"points in {shape[0]} dimension{'s' * (shape[0] > 1)}, sampled on the fly"
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    lines = {
        "run": f"{config.objective.name} on {config.data.name}, {begins} to {train.num_steps:,}, in {workdir}",
        "data": what,
        "network": f"{type(model).__name__}, {parameters:,} parameters, {config.model.dtype}",
        "objective": _options(config),
        "batch": f"{config.data.batch_size} on {devices}, {jax.process_count()} process(es), mesh {_mesh(prepared)}",
        "writes": f"checkpoints every {train.checkpoint_every:,} steps, metrics.jsonl every {train.log_every:,}, "
        f"previews {_every(train.preview_every)}",
    }
    if prepared.chosen:
        lines["automatic"] = ", ".join(f"{name} {_value(value)}" for name, value in prepared.chosen.items())
    if prepared.begins_with:
        lines["begins with"] = str(prepared.begins_with)
    if config.teacher.workdir:
        lines["teacher"] = f"step {config.teacher.step:,} of {config.teacher.workdir}"
    if (every := train.keep_every) and (kept := train.num_steps // every) > MANY_KEPT:
        lines["warning"] = f"keeps {kept:,} checkpoints, one every {every:,} steps: set train.keep_every to a multiple"
    return [f"{name:<11} {text}" for name, text in lines.items()]


def ending(config: ml_collections.ConfigDict, workdir: str, wall_seconds: float) -> list[str]:
    """What a finished run has written, and commands to use it."""
    step = config.train.num_steps
    run, saved = shlex.quote(workdir), Path(workdir) / layout.checkpoints(workdir).name  # spelled as given
    installed = Path(sys.argv[0]).name == "sgflow-train"
    again, sweep = ("sgflow-train", "sgflow-sweep") if installed else ("python main.py", "python -m eval.fid_sweep")
    lines = [f"done        {step:,} steps in {duration(wall_seconds)}: {saved / str(step)}"]
    if layout.preview_file(workdir, step).exists():
        lines.append(f"samples     {layout.preview_file(workdir, step)}")
    return [
        *lines,
        f"next        {again} --workdir={run} --mode=sample --out=samples.npz",
        f"            {sweep} --workdir={run}",
    ]


def _options(config: ml_collections.ConfigDict) -> str:
    """The objective and its options that differ from their defaults."""
    name, defaults = config.objective.name, objectives.default_options(config.objective.name)
    given = {key: value for key, value in config.objective.items() if key != "name" and value != defaults[key]}
    return f"{name}: {', '.join(f'{key} {value}' for key, value in given.items()) or 'all options at their defaults'}"


def _value(value: Any) -> str:
    """As on the command line."""
    return ",".join(map(str, value)) or "()" if isinstance(value, tuple) else str(value)


def _mesh(prepared: Prepared) -> str:
    return " x ".join(f"{name} {size}" for name, size in prepared.mesh.shape.items())


def _every(steps: int) -> str:
    return f"every {steps:,}" if steps else "none"
