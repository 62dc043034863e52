"""The page's training sections: how runs differ, where and how long they ran, their logs and their cost."""

from typing import Any

import jax
import ml_collections
import numpy as np

from eval import features
from eval.features import inception
from eval.machine import gradient_cost
from eval.page import embed
from eval.page.runs import Run, groups
from eval.scores import labels, plots
from sgflow_jax import build, data, objectives
from sgflow_jax.display import figures
from sgflow_jax.interfaces import InputError
from sgflow_jax.run.metric_log import Distance

PANEL = (4.0, 3.0)  # inches: small, so that its text can still be read on a phone
LAST = ("learning_rate", "grad_norm", "images_per_second")  # shown after the parts of the loss
CLOCKS = ("wall_seconds", "device_seconds")  # since the start of the run
CAPTIONS = {
    "loss": "The minimised loss, with weights and ramp: compare it only within one objective. It may be negative.",
    "diagonal_loss": (
        "Flow matching on u = t, before weights: comparable across objectives with the same data, interpolant, "
        "distribution of times and dropout."
    ),
    "off_diagonal_loss": "Before weights and ramp: compare it only within one objective.",
    "residual_norm_sq": (
        "Residual of the map's equation, before weights: comparable across objectives with the same equation and "
        "distribution of times (Eulerian: sgflow, esd, slim_esd, improved_mean_flow; Lagrangian: lsd, slim_lsd)."
    ),
    "grad_norm": "Before clipping, in units of the loss.",
    "images_per_second": "Comparable only between runs on the same devices.",
}
# Raised for a config of another version, with a missing or an unknown field.
OTHER_VERSION = (ValueError, TypeError, KeyError, AttributeError)


def differences(runs: list[Run]) -> list[tuple[str, list[str]]]:
    """Table lines with a cell per group, which lists what its runs have: the fields that differ, then where and how
    long each ran."""
    configs = [None if run.config is None else run.config.to_dict() for run in runs]
    lines = list(labels.differences(configs).items())
    lines += [
        ("steps trained", [f"{run.history[-1]['step']:,}" if run.history else "" for run in runs]),
        ("hours", [_hours(run, "wall_seconds") for run in runs]),
        ("device hours", [_hours(run, "device_seconds") for run in runs]),
        ("devices", [_started(run, lambda event: f"{event['devices']} {event['device_kind']}") for run in runs]),
        ("processes", [_started(run, lambda event: str(event["processes"])) for run in runs]),
        ("code", [_started(run, _code) for run in runs]),
    ]
    labels_of_runs = [run.group for run in runs]
    return [(name, _by_group(labels_of_runs, cells)) for name, cells in lines if any(cells)]


def _by_group(names: list[str], cells: list[str]) -> list[str]:
    """A cell for each name: those of its runs, without duplicates."""
    found: dict[str, dict[str, None]] = {}
    for name, cell in zip(names, cells, strict=True):
        found.setdefault(name, {})[cell] = None
    return [", ".join(filter(None, each)) for each in found.values()]


def told_lines(runs: list[Run]) -> str:
    """What a line of a figure is."""
    several = len(groups(runs)) < len(runs)
    return "one line for all runs that differ in the seed alone" if several else "one line per run"


def _hours(run: Run, clock: str) -> str:
    seconds = [row[clock] for row in run.history if clock in row]
    return f"{seconds[-1] / 3600:.3g}" if seconds else ""


def _started(run: Run, tell) -> str:
    """`tell` of each start event of a run, without duplicates; "" if the events lack it."""
    found = {}
    for event in run.events:
        if event.get("event") == "start":
            try:
                found[tell(event).strip()] = None
            except KeyError:
                continue
    return ", then ".join(found)


def _code(event: dict[str, Any]) -> str:
    commit = str(event["commit"] or "")[:12] + " (changed)" * bool(event.get("dirty"))
    return f"{event.get('sgflow_jax', '')} {commit}"


def curves(runs: list[Run], files: embed.Files) -> dict[str, Any]:
    """A figure per logged quantity, and the runs without a log."""
    histories = {group.label: [run.history for run in group.runs] for group in groups(runs)}
    names = dict.fromkeys(name for run in runs for row in run.history for name in row)
    names = [name for name in names if name not in ("step", *CLOCKS) and not Distance.of(name)]
    quantities = [name for name in names if name not in LAST] + [name for name in LAST if name in names]
    shown = []
    for name in quantities:
        lines = {label: plots.line(each, name) for label, each in histories.items()}
        ends = "; ".join(
            f"{label}: {line[0].mean:.3g} at step {line[0].step}, {line[-1].mean:.3g} at step {line[-1].step}"
            for label, line in lines.items()
            if line
        )
        text = f"{name.replace('_', ' ')} against the training step, {told_lines(runs)}. {ends}."
        figure = plots.training(histories, {name: name.replace("_", " ")}, size=PANEL)
        shown.append(embed.vector(figure, text, CAPTIONS.get(name, "")))
    if quantities:
        titles = {name: name.replace("_", " ") for name in quantities}
        embed.keep(files, "training", plots.training(histories, titles, size=PANEL))
    return {"shown": shown, "missing": [run.label for run in runs if not run.history]}


def quality(runs: list[Run], files: embed.Files) -> list[dict[str, str]]:
    """Distances measured during training, against steps and, if logged, against hours."""
    histories = {group.label: [run.history for run in group.runs] for group in groups(runs)}
    logged = {name for run in runs for row in run.history for name in row if Distance.of(name)}
    titles = {}
    for calls, extracted, samples in sorted(map(Distance.of, logged)):
        rule = inception.RULE if extracted == "inception" else ""  # the default is the only one while training
        title = f"{features.distance_name(extracted, '', rule)}, {samples:,} samples, in {figures.in_steps(calls)}"
        titles[Distance(calls, extracted, samples).name] = title
    shown = []
    for axis in (plots.STEPS, plots.HOURS):
        if not any(axis.field in row and any(map(Distance.of, row)) for run in runs for row in run.history):
            continue
        for name, title in titles.items():
            last = {label: plots.line(each, name, axis) for label, each in histories.items()}
            ends = "; ".join(f"{label}: {found[-1].mean:.3g} at the end" for label, found in last.items() if found)
            text = f"{title} while training, against {axis.label}, {told_lines(runs)}. {ends}."
            shown.append(embed.vector(plots.training(histories, {name: title}, axis, PANEL), text))
        embed.keep(files, f"quality_by_{axis.name}", plots.training(histories, titles, axis, PANEL))
    return shown


def cost(runs: list[Run]) -> list[dict[str, Any]]:
    """The cost of each run; unknown quantities are missing, and "reason" says why."""
    baselines = {}  # cost of flow matching by network and batch, which runs often share
    found = []
    for run in runs:
        speeds = [row["images_per_second"] for row in run.history if "images_per_second" in row]
        known = {"label": run.label, "speed": f"{np.median(speeds):.4g}" if speeds else "", "reason": ""}
        try:
            found.append({**known, **_gradient(run.config, baselines)})
        except OTHER_VERSION as error:
            found.append({**known, "reason": " ".join(str(error).split())})
    return found


def _gradient(config: ml_collections.ConfigDict | None, baselines: dict[str, gradient_cost.Cost]) -> dict[str, Any]:
    if config is None:
        raise InputError("there is no config.json")
    shape, network = data.shape(config.data), f"{config.model}{config.data}"
    params = jax.eval_shape(lambda key: build.train_step(config).init(key, shape).params, jax.random.key(0))
    ours = gradient_cost.gradient_cost(config, build.objective(config))
    if network not in baselines:
        baselines[network] = gradient_cost.gradient_cost(config, objectives.make("flow_matching"))
    base = baselines[network]
    return {
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}",
        "batch": config.data.batch_size,
        "flops": f"{ours.flops / 1e9:.4g}",
        "relative_flops": f"{ours.flops / base.flops:.2f}",
        "memory": f"{ours.residual_bytes / 2**20:.4g}",
        "relative_memory": f"{ours.residual_bytes / base.residual_bytes:.2f}",
    }
