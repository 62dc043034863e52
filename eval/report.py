"""Writes one page about runs on the same data.

    python -m eval.report --workdirs=runs/quickstart --out=runs/report
    python -m eval.report --workdirs=runs/a,runs/b --out=runs/report

Writes index.html, a self-contained page, and its pictures as files beside it. Reads the files that training and
eval.fid_sweep wrote to the workdirs, but no checkpoints. An installed package calls this command sgflow-report.
"""

import importlib.metadata
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jinja2
import numpy as np
from absl import flags
from matplotlib.figure import Figure

from eval import reference
from eval.page import classes_section, embed, gallery, neighbours, training_section
from eval.page.runs import Group, Run, common_kinds, groups, read
from eval.scores import plots, results, seeds
from sgflow_jax import __version__, cli, data, terminal
from sgflow_jax.display import figures
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

MOST_LINES = 12  # in a figure of the page


def write(workdirs: Sequence[str], out: str) -> Path:
    """Writes the page and its pictures; returns the page's path.

    InputError, before anything is written, if the runs are not comparable or out is not a directory."""
    runs = read(workdirs)
    folder = Path(out)
    disk.check_writable(folder / "index.html")
    files: embed.Files = {}
    text = render(runs, files, shlex.join(_command(workdirs, out)))
    disk.check_writable(*(folder / name for name in files))
    for name, content in files.items():
        disk.write_atomically(folder / name, content)
    disk.write_atomically(folder / "index.html", text)
    return folder / "index.html"


def render(runs: list[Run], files: embed.Files, command: str) -> str:
    """Renders the page and adds its pictures to files. command: the command line shown on the page."""
    kinds = common_kinds(runs)
    training = _training_images(runs)
    place = Path(__file__).with_name("report.html")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(place.read_text())
    return template.render(
        data=runs[0].rows[0].identity.reference.data,
        labels=[run.label for run in runs],
        groups=[seeds.titled(group.label, len(group.runs)) for group in groups(runs)],
        pooled=any(len(group.runs) > 1 for group in groups(runs)),
        row_count=sum(len(run.rows) for run in runs),
        scores=[_scores(groups(runs), kind) for kind in kinds],
        quality=_quality(runs, files),
        identity=_identity(runs),
        classes=classes_section.table(runs, kinds, training),
        differences=training_section.differences(runs),
        curves=training_section.curves(runs, files),
        progress=training_section.quality(runs, files),
        samples=_samples(runs, kinds[0], training, files),
        neighbours=_neighbours(runs, kinds[0], training, files),
        cost=training_section.cost(runs),
        command=command,
        versions=[
            f"sgflow_jax {__version__}",
            *(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "numpy")),
        ],
        files=sorted(files),
    )


def _command(workdirs: Sequence[str], out: str) -> list[str]:
    return ["python", "-m", "eval.report", f"--workdirs={','.join(workdirs)}", f"--out={out}"]


def _scores(shown: list[Group], kind: results.Kind) -> dict[str, Any]:
    """A table with a line per number of steps and a cell per group; the title of each, with the number of its runs that
    were measured, and its setting; how many are of one run alone; and the distance between halves of the real examples,
    if cached."""
    chosen = [group.chosen(kind) for group in shown]
    lines = [
        (steps, [_cell(rows[steps]) if steps in rows else "–" for rows in chosen])
        for steps in sorted({steps for rows in chosen for steps in rows})
    ]
    return {
        "name": kind.distance,
        "lines": lines,
        "titles": [seeds.titled(group.label, _measured(rows)) for group, rows in zip(shown, chosen, strict=True)],
        "alone": sum(_measured(rows) == 1 for rows in chosen),
        "settings": [_setting(group, rows) for group, rows in zip(shown, chosen, strict=True)],
        "halves": (halves := reference.halves(next(iter(chosen[0].values()))[0].identity.reference))
        and {"distance": f"{halves.distance:.3g}", "counts": [f"{n:,}" for n in halves.counts]},
    }


def _cell(rows: list[results.Row]) -> str:
    return results.plus_minus(*seeds.mean_and_spread(rows))


def _measured(chosen: dict[int, list[results.Row]]) -> int:
    """The number of networks, the same at every number of steps."""
    return seeds.count(next(iter(chosen.values())))


def _setting(group: Group, chosen: dict[int, list[results.Row]]) -> str:
    """The sampling settings of a group that its objective does not imply, and how many of its runs have them."""
    identity, measured = next(iter(chosen.values()))[0].identity, _measured(chosen)
    parts = [identity.method, identity.grid * (identity.grid != "uniform"), identity.guided]
    parts += [identity.parameters * (identity.parameters != "ema"), f"step {identity.checkpoint_step:,}"]
    parts += [f"{measured} of {len(group.runs)} runs" * (measured < len(group.runs))]
    return ", ".join(filter(None, parts))


def _quality(runs: list[Run], files: embed.Files) -> list[dict[str, str]]:
    """A figure per kind of distance; the file shows them side by side. All settings of every group, or, if these are
    too many lines, the setting of the table."""
    tagged = [(run.group, row) for run in runs for row in run.rows]
    kinds = list(dict.fromkeys(row.kind for _, row in tagged))
    if max(len(plots.series([each for each in tagged if each[1].kind == kind])) for kind in kinds) > MOST_LINES:
        tagged = [
            (group.label, row)
            for kind in kinds
            for group in groups(runs)
            if any(row.kind == kind for run in group.runs for row in run.rows)
            for rows in group.chosen(kind).values()
            for row in rows
        ]

    def draw(chosen, **options) -> Figure:
        return plots.distance_curve([row for _, row in chosen], [label for label, _ in chosen], **options)

    embed.keep(files, "quality", draw(tagged))
    shown = []
    for kind in kinds:
        chosen = [(label, row) for label, row in tagged if row.kind == kind]
        ends = []
        for label, points in plots.series(chosen).items():
            means = {steps: seeds.band(rows)[0] for steps, rows in sorted(points.items())}
            ends.append(f"{label}: {', '.join(f'{v:.3g} in {figures.in_steps(n)}' for n, v in means.items())}")
        lines = training_section.told_lines(runs)
        text = f"{kind.distance} against the number of sampling steps, {lines}. {'; '.join(ends)}."
        shown.append(embed.vector(draw(chosen, size=training_section.PANEL), text))
    return shown


def _identity(runs: list[Run]) -> dict[str, Any]:
    """All rows with all columns of `results.columns`, class shares, and the run's label if it is not the objective."""
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


def _training_images(runs: list[Run]) -> neighbours.Training | str:
    """The training images, or a sentence that says why they are unavailable."""
    try:
        return neighbours.training(runs)
    except training_section.OTHER_VERSION as error:  # an InputError too
        return " ".join(f"{error}.".split())


def _samples(
    runs: list[Run], kind: results.Kind, training: neighbours.Training | str, files: embed.Files
) -> dict[str, Any]:
    """A group of pictures per number of steps, and a row of real images."""
    found = gallery.samples(runs, kind)
    if found.by_steps:
        files["samples.png"] = figures.png(gallery.strip(found))
    return {
        "groups": [
            {"title": figures.in_steps(steps), "pictures": [embed.picture(picture) for picture in pictures]}
            for steps, pictures in found.by_steps.items()
        ],
        "real": None if isinstance(training, str) else embed.picture(gallery.real(training)),
        "seed": found.seed,
        "num_samples": next(iter(runs[0].chosen(kind).values()))[0].identity.num_samples,
        "missing": found.missing,
        "points": data.of_points(runs[0].rows[0].identity.reference.data),
        "exact": data.density(runs[0].rows[0].identity.reference.data) is not None,
    }


def _neighbours(
    runs: list[Run], kind: results.Kind, training: neighbours.Training | str, files: embed.Files
) -> dict[str, Any]:
    """Nearest training images and memorisation per run with stored images, or the reason why there are none."""
    missing = {"shown": [], "shares": ""}
    if isinstance(training, str):
        return {"reason": training, **missing}
    try:
        typical = neighbours.spread(training.images)
    except InputError as error:
        return {"reason": f"{error}.", **missing}
    shown = []
    for run in runs:
        if found := gallery.copies(run, kind, training.images, typical):
            files[embed.file_name("neighbours", run.label, files)] = figures.png(found.picture.pixels)
            shown.append({**found._asdict(), **embed.picture(found.picture), "steps": figures.in_steps(found.steps)})
    return {
        "reason": "" if shown else "no generated images are stored.",
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


def define_flags() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_list("workdirs", None, "Directories of runs on the same data, measured by eval.fid_sweep.")
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
