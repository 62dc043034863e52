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
from eval.scores import results

BESIDE = 8  # with more lines, the legend is beside the panel
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
    each series of rows. Several seeds show their mean and range, one its standard error.

    labels: the name of each row's run; its objective by default. size: of a panel, in inches.
    """
    kinds = defaultdict(list)
    for label, row in zip(labels or [row.identity.objective for row in rows], rows, strict=True):
        kinds[row.kind].append((label, row))
    most = max((len(series(chosen)) for chosen in kinds.values()), default=0)
    if most > BESIDE:
        size = size[0] + LEGEND[0], max(size[1], LEGEND[1] * most)
    figure, axes = panels(len(kinds), len(kinds), size)
    for ax, (kind, chosen) in zip(axes, kinds.items(), strict=True):
        values = [row.scores.value for _, row in chosen]
        lines = series(chosen)
        for number, (label, points) in enumerate(lines.items()):
            calls = sorted(points)
            means = [np.mean([row.scores.value for row in points[n]]) for n in calls]
            low, high = np.array([_range(points[n]) for n in calls]).T
            line_style = style(number)
            ax.plot(calls, means, **line_style, marker=MARKERS[number % len(MARKERS)], markersize=4, label=plain(label))
            ax.fill_between(calls, low, high, color=line_style["color"], alpha=0.2, linewidth=0)
            if len(lines) == 1:  # a single line has room for its numbers
                for n, mean in zip(calls, means, strict=True):
                    ax.annotate(f"{mean:.3g}", (n, mean), textcoords="offset points", xytext=(4, 6), fontsize="small")
        ax.set_xscale("log")
        ax.set_xticks(sorted({row.identity.calls for _, row in chosen}))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_locator(NullLocator())
        ax.margins(x=0.1, y=0.12)
        if max(values) > 10 * min(values) > 0:
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
        ylabel = textwrap.fill(f"{plain(kind.distance)} (lower is better)", int(13 * size[1]))
        ax.set(xlabel="sampling steps (network calls)", ylabel=ylabel)
        ax.set_title(textwrap.fill(plain(f"against {kind.against}"), int(13 * size[0])), fontsize="small")
        ax.grid(alpha=0.3)
        if len(lines) > BESIDE:
            ax.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        else:
            ax.legend(fontsize="small")
    return figure


def series(rows: list[tuple[str, results.Row]]) -> dict[str, dict[int, list[results.Row]]]:
    """Groups (label, row) pairs by series and number of calls. A series is named by the label of its run and, in
    brackets, by its guidance, if any, and by the other settings in which the rows differ."""
    several = [told for told in _SETTINGS if told is _guided or len({told(row.identity) for _, row in rows}) > 1]
    series = defaultdict(lambda: defaultdict(list))
    for label, row in rows:
        more = ", ".join(filter(None, (told(row.identity) for told in several)))
        series[label + f" ({more})" * bool(more)][row.identity.calls].append(row)
    return series


def _range(rows: list[results.Row]) -> tuple[float, float]:
    """The range of several seeds; for one, its standard error to either side."""
    values = [row.scores.value for row in rows]
    error = rows[0].scores.value_error or 0.0 if len(rows) == 1 else 0.0
    return min(values) - error, max(values) + error


class Axis(NamedTuple):
    """The x axis for logged numbers: `field` of a row of the log, divided by `unit`."""

    name: str
    field: str
    label: str
    unit: float = 1.0


STEPS = Axis("steps", "step", "training step")
HOURS = Axis("hours", "wall_seconds", "hours", 3600.0)


def training(
    histories: dict[str, list[dict[str, float]]],
    titles: dict[str, str],
    axis: Axis = STEPS,
    size: tuple[float, float] = (4.4, 3.0),
) -> Figure:
    """Draws logged numbers against the training step or time: a panel for each quantity, a line for each run that has
    it.

    histories: rows of the log by name of the run. titles: by the quantity's name in the log. size: of a panel, in
    inches.
    """
    figure, axes = panels(len(titles), 3, size)
    for ax, (quantity, title) in zip(axes, titles.items(), strict=True):
        drawn = []
        for number, (label, history) in enumerate(histories.items()):
            line = [
                (row[axis.field] / axis.unit, row[quantity]) for row in history if {axis.field, quantity} <= set(row)
            ]
            if line:
                marker = "." if len(line) < 20 else ""
                ax.plot(*zip(*line, strict=True), **style(number), linewidth=1.2, marker=marker, label=plain(label))
                drawn += [value for _, value in line]
        scale_axis(ax, drawn)
        ax.set(xlabel=axis.label, ylabel=plain(title))
        ax.xaxis.set_major_locator(MaxNLocator(5))  # more labels would overlap
        ax.grid(alpha=0.3)
        if drawn:
            ax.legend(fontsize="small")
    return figure
