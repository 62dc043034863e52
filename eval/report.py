"""One page about runs of the same data.

    python -m eval.report --workdirs=runs/quickstart --out=runs/report
    python -m eval.report --workdirs=runs/a,runs/b --out=runs/report

Writes DIR/index.html, which holds all its pictures and needs nothing else, and the pictures as files beside it. Reads
what training and eval.fid_sweep left in the workdirs, no checkpoint.
"""

import base64
import importlib.metadata
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jinja2
import ml_collections
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from eval import counts, gallery, neighbours, plots, results
from eval.runs import Run, common_kinds, read
from sgflow_jax import build, cli, data, figures, objectives, terminal
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError

PANEL = (4.0, 3.0)  # inches: small, so that its text can still be read on a phone
LAST = ("learning_rate", "grad_norm", "images_per_second")  # of the logged numbers; before them, the parts of the loss
# What a config of another version raises: it lacks a field, or has one that is not known any more.
OTHER_VERSION = (ValueError, TypeError, KeyError, AttributeError)
Files = dict[str, bytes]  # the pictures beside the page, by name


def write(workdirs: Sequence[str], out: str) -> Path:
    """Writes the page and its pictures; returns the page's path. InputError, before anything is written, for runs that
    cannot stand on one page, and for a place that is not a directory."""
    runs = read(workdirs)
    folder = Path(out)
    paths.check_writable(folder / "index.html")
    files: Files = {}
    text = render(runs, files, shlex.join(_command(workdirs, out)))
    paths.check_writable(*(folder / name for name in files))
    for name, content in files.items():
        paths.write_atomically(folder / name, content)
    paths.write_atomically(folder / "index.html", text)
    return folder / "index.html"


def render(runs: list[Run], files: Files, command: str) -> str:
    """The page; adds its pictures to files. command: how it was made."""
    kinds = common_kinds(runs)
    place = Path(__file__).with_name("report.html")
    options = dict(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = jinja2.Environment(**options).from_string(place.read_text())
    return template.render(
        data=runs[0].rows[0].identity.reference.data,
        labels=[run.label for run in runs],
        row_count=sum(len(run.rows) for run in runs),
        best=[_best(runs, kind) for kind in kinds],
        quality=_quality(runs, files),
        identity=_identity(runs),
        curves=_curves(runs, files),
        samples=_samples(runs, kinds[0], files),
        neighbours=_neighbours(runs, kinds[0], files),
        cost=_cost(runs),
        command=command,
        versions=[f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "numpy")],
        files=sorted(files),
    )


def _command(workdirs: Sequence[str], out: str) -> list[str]:
    return ["python", "-m", "eval.report", f"--workdirs={','.join(workdirs)}", f"--out={out}"]


def _best(runs: list[Run], kind: str) -> dict[str, Any]:
    """A line for each number of steps: a cell for each run, whose is the lowest, and which are as low within both
    spreads; and the setting of each run."""
    name = kind.partition("\n")[0]
    chosen = {run.label: run.chosen(kind) for run in runs}
    lines = []
    for steps in sorted({steps for rows in chosen.values() for steps in rows}):
        found = {label: _mean_and_spread(rows[steps]) for label, rows in chosen.items() if steps in rows}
        cells = {label: results.plus_minus(*both) for label, both in found.items()}
        lowest = min(found, key=lambda label: found[label][0])
        reach = found[lowest][0] + (found[lowest][1] or 0)
        level = {label for label, (mean, spread) in found.items() if mean - (spread or 0) <= reach}
        marked = level if len(found) > 1 else set()
        title = figures.in_steps(steps)
        lines.append({"steps": steps, "title": title, "cells": cells, "lowest": lowest, "marked": marked})
    settings = {label: _setting(next(iter(rows.values()))[0].identity) for label, rows in chosen.items()}
    return {"name": name, "lines": lines, "settings": settings}


def _setting(identity: results.Identity) -> str:
    """How a run was sampled, as far as it is not told by the objective."""
    parts = [identity.method, identity.grid * (identity.grid != "uniform")]
    parts += [identity.parameters * (identity.parameters != "ema"), f"step {identity.checkpoint_step:,}"]
    return ", ".join(filter(None, parts))


def _mean_and_spread(rows: list[results.Row]) -> tuple[float, float | None]:
    """Over seeds the mean and half of the range; of one seed the value and its standard error."""
    values = [row.scores.value for row in rows]
    spread = rows[0].scores.value_error if len(rows) == 1 else (max(values) - min(values)) / 2
    return float(np.mean(values)), spread


def _quality(runs: list[Run], files: Files) -> list[dict[str, str]]:
    """A figure for each kind of distance that any run has; the file has them side by side."""
    tagged = [(run.label, row) for run in runs for row in run.rows]

    def draw(chosen, **options) -> Figure:
        return plots.distance_curve([row for _, row in chosen], [label for label, _ in chosen], **options)

    _keep(files, "quality", draw(tagged))
    shown = []
    for kind in dict.fromkeys(plots.measured(row.identity) for _, row in tagged):
        chosen = [(label, row) for label, row in tagged if plots.measured(row.identity) == kind]
        ends = []
        for label, points in plots.series(chosen).items():
            means = {steps: np.mean([row.scores.value for row in rows]) for steps, rows in sorted(points.items())}
            ends.append(f"{label}: {', '.join(f'{v:.3g} in {figures.in_steps(n)}' for n, v in means.items())}")
        name = kind.partition("\n")[0]
        text = f"{name} against the number of sampling steps, a line for each run. {'; '.join(ends)}."
        shown.append({"src": _vector(draw(chosen, size=PANEL)), "alt": text})
    return shown


def _identity(runs: list[Run]) -> dict[str, Any]:
    """All rows with all columns of `results.columns`, the run where it is not its objective, and the class shares."""
    columns = results.columns()
    if counted := any(row.scores.class_counts for run in runs for row in run.rows):
        columns["class shares, %"] = lambda row: _percent(np.array(row.scores.class_counts or ()))
    named = any(run.label != row.identity.objective for run in runs for row in run.rows)
    return {
        "titles": ["run"] * named + list(columns),
        "lines": [
            [run.label] * named + [cell(row) for cell in columns.values()]
            for run in runs
            for row in results.in_order(run.rows)
        ],
        "counted": counted,
    }


def _percent(counts: np.ndarray) -> str:
    return " ".join(f"{100 * count / counts.sum():.1f}" for count in counts)


def _curves(runs: list[Run], files: Files) -> dict[str, Any]:
    """A figure for each logged number, and the runs that logged none."""
    histories = {run.label: run.history for run in runs}
    names = dict.fromkeys(name for run in runs for row in run.history for name in row if name != "step")
    quantities = [name for name in names if name not in LAST] + [name for name in LAST if name in names]
    shown = []
    for name in quantities:
        lines = {label: [row for row in history if name in row] for label, history in histories.items()}
        ends = "; ".join(
            f"{label}: {line[0][name]:.3g} at step {line[0]['step']}, {line[-1][name]:.3g} at step {line[-1]['step']}"
            for label, line in lines.items()
            if line
        )
        text = f"{name.replace('_', ' ')} against the training step, a line for each run. {ends}."
        shown.append({"src": _vector(plots.training(histories, [name], PANEL)), "alt": text})
    if quantities:
        _keep(files, "training", plots.training(histories, quantities, PANEL))
    return {"shown": shown, "missing": [run.label for run in runs if not run.history]}


def _samples(runs: list[Run], kind: str, files: Files) -> dict[str, Any]:
    """A group of pictures for each number of steps."""
    found = gallery.samples(runs, kind)
    if found.by_steps:
        files["samples.png"] = figures.png(gallery.strip(found))
    return {
        "groups": [
            {"title": figures.in_steps(steps), "pictures": [_picture(picture) for picture in pictures]}
            for steps, pictures in found.by_steps.items()
        ],
        "seed": found.seed,
        "num_samples": next(iter(runs[0].chosen(kind).values()))[0].identity.num_samples,
        "missing": found.missing,
        "points": len(data.shape(runs[0].rows[0].identity.reference.data)) == 1,
    }


def _neighbours(runs: list[Run], kind: str, files: Files) -> dict[str, Any]:
    """A picture and a number for each run with stored images; none, with the reason, without the training images."""
    try:
        training = neighbours.training(runs)
        typical = neighbours.spread(training.images)
    except OTHER_VERSION as error:  # an InputError too
        return {"reason": " ".join(f"{error}.".split()), "shown": [], "shares": ""}
    shown = []
    for run in runs:
        if found := gallery.copies(run, kind, training.images, typical):
            files[_file_name("neighbours", run.label, files)] = figures.png(found.picture.pixels)
            shown.append({**found._asdict(), **_picture(found.picture), "steps": figures.in_steps(found.steps)})
    return {
        "reason": "" if shown else "no generated images were kept.",
        "shown": shown,
        "typical": typical,
        "mirrored": training.mirrored,
        "held": training.held,
        "total": training.total,
        "shares": _percent(training.shares),
        "nearest": gallery.NEAREST,
        "close": neighbours.CLOSE,
        "compared": min(neighbours.COMPARED, len(training.images)),
    }


def _cost(runs: list[Run]) -> list[dict[str, Any]]:
    """What each run costs; a quantity that is not known is missing, and "reason" says why."""
    baselines = {}  # of flow matching, by network and batch: runs often share them
    found = []
    for run in runs:
        speeds = [row["images_per_second"] for row in run.history if "images_per_second" in row]
        known = {"label": run.label, "speed": f"{np.median(speeds):.4g}" if speeds else "", "reason": ""}
        try:
            found.append({**known, **_gradient(run.config, baselines)})
        except OTHER_VERSION as error:
            found.append({**known, "reason": " ".join(str(error).split())})
    return found


def _gradient(config: ml_collections.ConfigDict | None, baselines: dict[str, counts.Cost]) -> dict[str, Any]:
    if config is None:
        raise InputError("there is no config.json")
    shape, network = data.shape(config.data.name), f"{config.model}{config.data}"
    params = jax.eval_shape(lambda key: build.train_step(config).init(key, shape).params, jax.random.key(0))
    ours = counts.gradient_cost(config, build.objective(config))
    if network not in baselines:
        baselines[network] = counts.gradient_cost(config, objectives.make("flow_matching"))
    base = baselines[network]
    return {
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,}",
        "batch": config.data.batch_size,
        "flops": f"{ours.flops / 1e9:.4g}",
        "relative_flops": f"{ours.flops / base.flops:.2f}",
        "memory": f"{ours.residual_bytes / 2**20:.4g}",
        "relative_memory": f"{ours.residual_bytes / base.residual_bytes:.2f}",
    }


def _file_name(what: str, label: str, files: Files) -> str:
    """One that no other picture has."""
    name = f"{what}_{''.join(c if c.isalnum() or c in '-_.' else '_' for c in label)}"
    while f"{name}.png" in files:
        name += "_"
    return f"{name}.png"


def _keep(files: Files, name: str, figure: Figure) -> None:
    """As a file to scale and a file of pixels."""
    files[f"{name}.svg"], files[f"{name}.png"] = plots.svg(figure), plots.png(figure)


def _vector(figure: Figure) -> str:
    return _inline(plots.svg(figure), "svg+xml")


def _picture(picture: gallery.Picture) -> dict[str, Any]:
    height, width, _ = picture.pixels.shape
    source = _inline(figures.png(picture.pixels), "png")
    return {"src": source, "alt": picture.text, "caption": picture.caption, "width": width, "height": height}


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def define_flags() -> None:
    """Only for the program: two modules with the same flags could not be imported together otherwise."""
    flags.DEFINE_list("workdirs", None, "Directories of runs of the same data that eval.fid_sweep has measured.")
    flags.DEFINE_alias("workdir", "workdirs")
    cli.define_path("out", None, "Directory for the page and its pictures.")


def main(_):
    given = flags.FLAGS
    workdirs = cli.directories("workdirs", given.workdirs)
    cli.require(out=given.out)
    cli.start_jax()
    if jax.process_index() == 0:
        terminal.say(str(write(workdirs, given.out)))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
