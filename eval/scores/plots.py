"""Figures of evaluation results."""

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from eval.figure import MARKERS, panels, plain, scale_axis, style
from eval.scores import results


def distance_curve(
    rows: list[results.Row], labels: Sequence[str] | None = None, size: tuple[float, float] = (6.4, 4.4)
) -> Figure:
    """Distance against the number of sampling steps (logarithmic): a panel for each kind of distance, a line for each
    series of rows. Several seeds give their mean and range, one its standard error.

    labels: what the run of each row is called; its objective by default. size: of a panel, in inches.
    """
    kinds = defaultdict(list)
    for label, row in zip(labels or [row.identity.objective for row in rows], rows, strict=True):
        kinds[measured(row.identity)].append((label, row))
    figure, axes = panels(len(kinds), len(kinds), size)
    for ax, (title, chosen) in zip(axes, kinds.items(), strict=True):
        values = [row.scores.value for _, row in chosen]
        lines = series(chosen)
        for number, (label, points) in enumerate(lines.items()):
            steps = sorted(points)
            means = [np.mean([row.scores.value for row in points[n]]) for n in steps]
            low, high = np.array([_range(points[n]) for n in steps]).T
            line_style = style(number)
            ax.plot(steps, means, **line_style, marker=MARKERS[number % len(MARKERS)], markersize=4, label=plain(label))
            ax.fill_between(steps, low, high, color=line_style["color"], alpha=0.2, linewidth=0)
            if len(lines) == 1:  # one line alone has room for its numbers
                for n, mean in zip(steps, means, strict=True):
                    ax.annotate(f"{mean:.3g}", (n, mean), textcoords="offset points", xytext=(4, 6), fontsize="small")
        ax.set_xscale("log")
        ax.set_xticks(sorted({row.identity.steps for _, row in chosen}))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_locator(NullLocator())
        ax.margins(x=0.1, y=0.12)
        if max(values) > 10 * min(values) > 0:
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
        name, _, against = plain(title).partition("\n")
        ax.set(xlabel="sampling steps (network calls)", ylabel=f"{name} (lower is better)")
        ax.set_title(textwrap.fill(against, int(13 * size[0])), fontsize="small")
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")
    return figure


def measured(identity: results.Identity) -> str:
    """What must agree for two values to stand in one panel: the distance and, in a second line, what it is against."""
    return f"{results.name(identity)}\nagainst {results.against(identity.reference)}"


def series(rows: list[tuple[str, results.Row]]) -> dict[str, dict[int, list[results.Row]]]:
    """Rows by series and number of steps; a label says the run, and what else tells the series apart."""
    fields = ("method", "grid", "checkpoint_step", "parameters")
    several = [field for field in fields if len({getattr(row.identity, field) for _, row in rows}) > 1]
    series = defaultdict(lambda: defaultdict(list))
    for label, row in rows:
        more = ", ".join(str(getattr(row.identity, field)) for field in several)
        series[label + f" ({more})" * bool(more)][row.identity.steps].append(row)
    return series


def _range(rows: list[results.Row]) -> tuple[float, float]:
    """Of the values of several seeds; for one, its standard error to either side."""
    values = [row.scores.value for row in rows]
    error = rows[0].scores.value_error or 0.0 if len(rows) == 1 else 0.0
    return min(values) - error, max(values) + error


class Axis(NamedTuple):
    """What logged numbers are drawn against. field: of a row of the log, in units of `unit`."""

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
    """Logged numbers against the training step, or time: a panel for each quantity, a line for each run that has it.

    histories: by the name of the run, a row of the log for each logged step. titles: of the quantities, by their names
    in the log. size: of a panel, in inches.
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
        ax.xaxis.set_major_locator(MaxNLocator(5))  # more labels would run into each other
        ax.grid(alpha=0.3)
        if drawn:
            ax.legend(fontsize="small")
    return figure
