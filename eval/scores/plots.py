"""Figures of evaluation results."""

import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from eval.figure import MARKERS, panels, plain, scale_axis, style
from eval.scores import results, seeds

BESIDE = 8  # with more lines, the legend is beside the panel
LONG = 44  # letters: with longer names, too
BREAK = 36  # letters, after which a name in a legend beside the panel goes on in another line
LEGEND = (2.4, 0.25)  # inches: its width, and the height of a line


def _guided(identity: results.Identity) -> str:
    return identity.guided


# What may differ between the series of one run, in words; "" where it goes without saying.
_SETTINGS: tuple[Callable[[results.Identity], str], ...] = (
    lambda identity: identity.method,
    lambda identity: identity.grid,
    lambda identity: str(identity.checkpoint_step),
    lambda identity: identity.parameters,
    _guided,
    lambda identity: "labels as in the data" * bool(identity.labels),
)


def distance_curve(
    rows: list[results.Row], labels: Sequence[str] | None = None, size: tuple[float, float] = (6.4, 4.4)
) -> Figure:
    """Draws distance against the number of sampling steps (logarithmic): a panel for each kind of distance, a line for
    each series of rows, with the band of `seeds.band`.

    labels: the name of each row's run; its objective by default. Runs of one name share a line, which tells their
    number. size: of a panel, in inches.
    """
    kinds = defaultdict(list)
    for label, row in zip(labels or [row.identity.objective for row in rows], rows, strict=True):
        kinds[row.kind].append((label, row))
    most = max((len(series(chosen)) for chosen in kinds.values()), default=0)
    beside = most > BESIDE or any(len(label) > LONG for chosen in kinds.values() for label in series(chosen))
    letters = int(13 * size[0])  # that fit above a panel
    if beside:
        size = size[0] + LEGEND[0], max(size[1], LEGEND[1] * most)
    figure, axes = panels(len(kinds), len(kinds), size)
    for ax, (kind, chosen) in zip(axes, kinds.items(), strict=True):
        lines = series(chosen)
        drawn = [row for points in lines.values() for rows in points.values() for row in rows]
        values = [row.scores.value for row in drawn]
        for number, (label, points) in enumerate(lines.items()):
            calls = sorted(points)
            means, low, high = np.array([seeds.band(points[n]) for n in calls]).T
            line_style, label = style(number), plain(seeds.titled(label, seeds.count(points[calls[0]])))
            label = textwrap.fill(label, BREAK) if beside else label
            ax.plot(calls, means, **line_style, marker=MARKERS[number % len(MARKERS)], markersize=4, label=label)
            ax.fill_between(calls, low, high, color=line_style["color"], alpha=0.2, linewidth=0)
            if len(lines) == 1:  # a single line has room for its numbers
                for n, mean in zip(calls, means, strict=True):
                    ax.annotate(f"{mean:.3g}", (n, mean), textcoords="offset points", xytext=(4, 6), fontsize="small")
        ax.set_xscale("log")
        ax.set_xticks(sorted({row.identity.calls for row in drawn}))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_locator(NullLocator())
        ax.margins(x=0.1, y=0.12)
        if max(values) > 10 * min(values) > 0:
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
        ylabel = textwrap.fill(f"{plain(kind.distance)} (lower is better)", int(13 * size[1]))
        ax.set(xlabel="sampling steps (network calls)", ylabel=ylabel)
        ax.set_title(textwrap.fill(plain(f"against {kind.against}"), letters), fontsize="small")
        ax.grid(alpha=0.3)
        place = {"fontsize": "small", "title_fontsize": "x-small"}
        if beside:
            place |= {"fontsize": "x-small", "loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        ax.legend(title=_meaning([seeds.count(next(iter(points.values()))) for points in lines.values()]), **place)
    return figure


def _meaning(numbers: list[int]) -> str | None:
    """What the bands of lines over so many networks are; None if none is over several."""
    if max(numbers) == 1:
        return None
    alone = "\n(of one run: over sampling seeds, or standard error)" * (min(numbers) == 1)
    return f"mean; band: range over training seeds{alone}"


def series(rows: list[tuple[str, results.Row]]) -> dict[str, dict[int, list[results.Row]]]:
    """Groups (label, row) pairs by series and number of calls. A series is named by the label of its run and, in
    brackets, by its guidance, if any, and by the other settings in which the rows differ. Its networks are those of
    `seeds.of_one_set`."""
    several = [told for told in _SETTINGS if told is _guided or len({told(row.identity) for _, row in rows}) > 1]
    found: dict[str, dict[int, list[results.Row]]] = defaultdict(lambda: defaultdict(list))
    for label, row in rows:
        more = ", ".join(filter(None, (told(row.identity) for told in several)))
        found[label + f" ({more})" * bool(more)][row.identity.calls].append(row)
    return {label: seeds.of_one_set(points) for label, points in found.items()}


class Axis(NamedTuple):
    """The x axis for logged numbers: `field` of a row of the log, divided by `unit`."""

    name: str
    field: str
    label: str
    unit: float = 1.0


STEPS = Axis("steps", "step", "training step")
HOURS = Axis("hours", "wall_seconds", "hours", 3600.0)


History = list[dict[str, float]]  # rows of the log


class Point(NamedTuple):
    """A logged quantity at one step: its mean over runs, and their range. x: the mean on the axis."""

    step: int
    x: float
    mean: float
    low: float
    high: float


def line(histories: list[History], quantity: str, axis: Axis = STEPS) -> list[Point]:
    """One line for the runs that have logged a quantity: their mean at each step that all of them have."""
    logged = [
        {
            row["step"]: (row[axis.field] / axis.unit, row[quantity])
            for row in each
            if {axis.field, quantity} <= set(row)
        }
        for each in histories
    ]
    logged = [each for each in logged if each]
    points = []
    for step in [step for step in logged[0] if all(step in each for each in logged)] if logged else []:
        x, values = np.array([each[step] for each in logged]).T
        points.append(Point(step, np.mean(x), np.mean(values), min(values), max(values)))
    return points


def training(
    histories: dict[str, list[History]],
    titles: dict[str, str],
    axis: Axis = STEPS,
    size: tuple[float, float] = (4.4, 3.0),
) -> Figure:
    """Draws logged numbers against the training step or time: a panel for each quantity, a line for each name whose
    runs have it, and a band, the range over these.

    histories: the logs of one or more runs, by name. titles: by the quantity's name in the log. size: of a panel, in
    inches.
    """
    figure, axes = panels(len(titles), 3, size)
    for ax, (quantity, title) in zip(axes, titles.items(), strict=True):
        drawn = []
        for number, (label, runs) in enumerate(histories.items()):
            if points := line(runs, quantity, axis):
                _, x, means, low, high = zip(*points, strict=True)
                marker, look = "." if len(points) < 20 else "", style(number)
                name = plain(seeds.titled(label, sum(any(quantity in row for row in run) for run in runs)))
                ax.plot(x, means, **look, linewidth=1.2, marker=marker, label=name)
                if len(runs) > 1:
                    ax.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)
                drawn += means
        scale_axis(ax, drawn)
        ax.set(xlabel=axis.label, ylabel=plain(title))
        ax.xaxis.set_major_locator(MaxNLocator(5))  # more labels would overlap
        ax.grid(alpha=0.3)
        if drawn:
            ax.legend(fontsize="small")
    return figure
