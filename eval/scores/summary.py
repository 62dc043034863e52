"""The readable results of a sweep: table, curve, a picture of the first samples, and a table for the terminal."""

import contextlib
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval import reference
from eval.figure import png
from eval.scores import plots, results, seeds
from sgflow_jax import data
from sgflow_jax.display import figures
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout

WIDTH = 100  # characters per line in the terminal; further runs come below
KEPT = {3: 64, 1: 4096}  # examples in the file of a row: images [H, W, C], points [D]
COLUMNS = 8  # of the picture of a row

_FEATURES = {
    "inception": "the features of InceptionV3",
    "efficientnet_lite0": "the features of EfficientNet-Lite0",
    "classifier": "the features of a classifier of {data}",
    "pixels": "their {values}",
}


def files(folder: Path) -> tuple[Path, Path]:
    """The paths of table and curve."""
    return folder / "fid_table.md", folder / "fid_curve.png"


def write(
    folder: Path, rows: list[results.Row], runs: Sequence[str] = (), lines: Sequence[str] | None = None
) -> list[Path]:
    """Writes table and curve and returns their paths. runs: the name of each row's run, for one more column. lines: the
    name of its line in the curve; its objective by default."""
    table, curve = files(folder)
    disk.write_atomically(table, results.table(rows, runs))
    disk.write_atomically(curve, png(plots.distance_curve(rows, lines)))
    return [table, curve]


def picture(workdir: str, rows: list[results.Row]) -> Path | None:
    """Writes the first samples in each number of steps, from the same noise, of the newest checkpoint among the rows.
    Returns the path; None if no samples were kept."""
    newest = max(row.identity.checkpoint_step for row in rows)
    chosen = {row.identity.calls: row for row in reversed(rows) if row.identity.checkpoint_step == newest}
    name = rows[0].identity.reference.data
    examples = {}
    for calls, row in sorted(chosen.items()):
        with contextlib.suppress(InputError):  # missing, or damaged
            (examples[calls],) = disk.read_arrays(results.examples_file(workdir, row.identity), "examples")
    if not examples:
        return None
    target = layout.evaluation(workdir) / "samples.png"
    disk.write_atomically(target, figures.png(figures.by_calls(examples, data.density(name))))
    return target


def write_examples(file: Path, examples: np.ndarray, name: str) -> None:
    """Writes the first examples of a row, [n, ...] of the data set `name`, as an array and as a picture."""
    with contextlib.suppress(InputError):  # missing, or damaged
        (kept,) = disk.read_arrays(file, "examples")
        if kept.shape[1:] == examples.shape[1:] and len(kept) >= len(examples):  # from a row of more samples
            return
    disk.write_arrays(file, {"examples": examples})
    if examples.ndim == 2:
        drawn = figures.point_panels({"": examples}, data.density(name))
    else:
        drawn = figures.image_grid([examples[i : i + COLUMNS] for i in range(0, len(examples), COLUMNS)])
    disk.write_atomically(file.with_suffix(".png"), figures.png(drawn))


def screen(tagged: list[tuple[str, results.Row]]) -> str:
    """A table for each kind of distance, steps down and runs across, and its explanation.

    tagged: pairs of the name of a run and a row.
    """
    kinds = dict.fromkeys(row.kind for _, row in tagged)
    return "\n\n".join(_table([each for each in tagged if each[1].kind == kind]) for kind in kinds)


def _table(tagged: list[tuple[str, results.Row]]) -> str:
    series = plots.series(tagged)
    calls = sorted({calls for rows in series.values() for calls in rows})
    columns = [
        [title, *(results.plus_minus(*seeds.mean_and_spread(rows[n])) if n in rows else "-" for n in calls)]
        for title, rows in series.items()
    ]
    left = ["steps", *map(str, calls)]
    lines = []
    while columns:
        taken = 1
        while taken < len(columns) and sum(2 + max(map(len, each)) for each in columns[: taken + 1]) <= WIDTH - 6:
            taken += 1
        block, columns = columns[:taken], columns[taken:]
        widths = [max(map(len, column)) for column in block]
        for number, first in enumerate(left):
            cells = [column[number].ljust(width) for column, width in zip(block, widths, strict=True)]
            lines.append(f"{first:>6}  {'  '.join(cells)}".rstrip())
        lines.append("")
    rows = [row for _, row in tagged]
    return "\n".join([results.name(rows[0].identity), "", *lines, _meaning(rows)])


def _reference(identity: results.ReferenceIdentity) -> str:
    """What was compared with, in a few words."""
    if identity.moments:
        return f"the moments in {identity.moments}"
    return f"the {identity.reference_count:,} of {identity.title}"


def _meaning(rows: list[results.Row]) -> str:
    """Explains the numbers of a table."""
    identity, target = rows[0].identity, rows[0].identity.reference
    values = "coordinates" if data.of_points(target.data) else "pixels"
    values = _FEATURES[target.features].format(data=target.data, values=values)
    text = (
        f"Squared Fréchet distance between {identity.num_samples:,} samples and {_reference(target)} in {values}; "
        "lower is better. "
    )
    if target.moments:
        text += "Moments alone give no kernel distance, precision or recall. "
    if halves := reference.halves(target):
        text += f"Two halves of the real ones have distance {halves.distance:.2g}. "
    if len({row.identity.seed for row in rows}) > 1:
        text += "±: half of the range over seeds."
    elif any(row.scores.value_error for row in rows):
        text += "±: standard error of drawing the samples."
    return textwrap.fill(text, WIDTH)
