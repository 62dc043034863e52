"""Figures of evaluation results."""

import io
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from eval import results
from eval.rows import Row

MARKERS = "osD^vP*X"  # so that lines differ without colours too


def distance_curve(
    rows: list[results.Row], labels: Sequence[str] | None = None, size: tuple[float, float] = (6.4, 4.4)
) -> Figure:
    """Distance against the number of sampling steps (logarithmic): a panel for each kind of distance, a line for each
    series of rows. Several seeds give their mean and range, one its standard error.

    labels: what the run of each row is called; its objective by default. size: of a panel, in inches.
    """
    panels = defaultdict(list)
    for label, row in zip(labels or [row.identity.objective for row in rows], rows, strict=True):
        panels[measured(row.identity)].append((label, row))
    figure, axes = _panels(len(panels), len(panels), size)
    for ax, (title, chosen) in zip(axes, panels.items(), strict=True):
        values = [row.scores.value for _, row in chosen]
        lines = series(chosen)
        for number, (label, points) in enumerate(lines.items()):
            steps = sorted(points)
            means = [np.mean([row.scores.value for row in points[n]]) for n in steps]
            low, high = np.array([_range(points[n]) for n in steps]).T
            style = _style(number)
            ax.plot(steps, means, **style, marker=MARKERS[number % len(MARKERS)], markersize=4, label=_plain(label))
            ax.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
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
        name, _, against = _plain(title).partition("\n")
        ax.set(xlabel="sampling steps (network calls)", ylabel=f"{name} (lower is better)")
        ax.set_title(textwrap.fill(against, int(13 * size[0])), fontsize="small")
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small")
    return figure


def measured(identity: results.Identity) -> str:
    """What must agree for two values to stand in one panel: the distance and, in a second line, what it is against."""
    return f"{results.name(identity)}\nagainst {results.against(identity.reference)}"


def _style(number: int) -> dict[str, str]:
    """Of the number-th line: ten colours, then the same in dashes."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}


def _plain(label: str) -> str:
    """Text that is no mathematics, and that a legend does not leave out for its first letter."""
    escaped = label.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


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
    figure, axes = _panels(len(titles), 3, size)
    for ax, (quantity, title) in zip(axes, titles.items(), strict=True):
        drawn = []
        for number, (label, history) in enumerate(histories.items()):
            line = [
                (row[axis.field] / axis.unit, row[quantity]) for row in history if {axis.field, quantity} <= set(row)
            ]
            if line:
                marker = "." if len(line) < 20 else ""
                ax.plot(*zip(*line, strict=True), **_style(number), linewidth=1.2, marker=marker, label=_plain(label))
                drawn += [value for _, value in line]
        _scale(ax, drawn)
        ax.set(xlabel=axis.label, ylabel=_plain(title))
        ax.xaxis.set_major_locator(MaxNLocator(5))  # more labels would run into each other
        ax.grid(alpha=0.3)
        if drawn:
            ax.legend(fontsize="small")
    return figure


def _scale(ax, values: list[float]) -> None:
    """Logarithmic for values of several sizes; where some are not positive, linear around zero."""
    sizes = np.abs([value for value in values if np.isfinite(value) and value != 0])
    if not len(sizes) or max(sizes) <= 10 * np.median(sizes) and max(sizes) <= 30 * min(sizes):
        return
    if len(sizes) == len(values) and min(values) > 0:
        ax.set_yscale("log")
    elif max(sizes) > 10 * np.median(sizes):
        ax.set_yscale("symlog", linthresh=np.median(sizes))


def _panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure of `count` axes of that size in inches, in lines of `columns`; those left over are not shown."""
    columns = min(count, columns)
    lines = -(-count // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(size[0] * columns, size[1] * lines), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, axes.ravel()[:count]


def stationarity(found: list[Row]) -> bytes:
    """z of the expected gradient for each row of `eval.stationarity`, at the truth and at the wrong maps: PNG."""
    names = list(dict.fromkeys(row["objective"] for row in found))
    laws = list(dict.fromkeys(row["law"] for row in found))
    places = {
        "exact": ("o", "tab:blue", "exact map"),
        "perturbed": ("|", "tab:orange", "perturbed map"),
        "velocity": ("x", "tab:gray", "velocity as the map"),
    }
    figure, axes = plt.subplots(
        1,
        len(laws),
        figsize=(1.5 + 5 * len(laws), 1.5 + 0.2 * len(names)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, law in zip(axes[0], laws, strict=True):
        for place, (marker, colour, label) in places.items():
            chosen = [row for row in found if row["law"] == law]
            z = [max(row[place]["z"], 0.1) for row in chosen]
            y = [names.index(row["objective"]) for row in chosen]
            ax.scatter(z, y, s=30, color=colour, marker=marker, label=label)
        ax.axvspan(0.1, 4, color="tab:green", alpha=0.12)
        ax.axvline(8, color="tab:red", linewidth=1, linestyle="--")
        ax.set_xscale("log")
        ax.set_xlim(0.1, None)
        ax.set_xlabel("largest |mean gradient| / standard error")
        ax.set_title(f"{law}: zero below 4, not zero above 8")
        ax.grid(axis="y", alpha=0.2)
    axes[0, 0].set_yticks(range(len(names)), names, fontsize="small")
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize="small", loc="outside upper right", ncols=3)
    return png(figure)


def toy_maps(found: list[Row]) -> bytes:
    """Learned against exact f(0, 1, .): a panel for each objective and data set, its first row that did not diverge."""
    first = {}
    for row in found:
        if not row["diverged"]:
            first.setdefault((row["data"], row["objective"]), row)
    columns = min(6, len(first))
    lines = max(1, -(-len(first) // columns)) if first else 1
    figure, axes = plt.subplots(
        lines, max(columns, 1), figsize=(2.4 * max(columns, 1), 2.5 * lines), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(first) :]:
        ax.set_axis_off()
    for ax, ((name, objective), row) in zip(axes.flat, first.items(), strict=False):
        noise, learned, exact = (np.array(row[key]) for key in ("noise", "learned", "exact"))
        if noise.shape[1] == 1:
            ax.plot(noise, exact, color="tab:gray", linewidth=3, alpha=0.5, label="exact")
            ax.plot(noise, learned, color="tab:blue", linewidth=1, label="learned")
            ax.set_xlim(-3, 3)
        else:
            ax.plot(*np.stack([exact, learned], axis=2).transpose(1, 2, 0), color="tab:red", linewidth=0.4, alpha=0.5)
            ax.scatter(*exact.T, s=2, color="tab:gray", label="exact")
            ax.scatter(*learned.T, s=2, color="tab:blue", label="learned")
            ax.set(xlim=(-2.8, 2.8), ylim=(-2.8, 2.8), aspect="equal")
        ax.set_title(f"{objective}\n{name}, RMSE {row['one_jump']:.3f}", fontsize="x-small")
        ax.tick_params(labelsize="x-small")
    if first:
        axes[0, 0].legend(fontsize="x-small")
    return png(figure)


def ablation(series: dict[str, dict[str, dict[float | str, list[float]]]], xlabel: str) -> bytes:
    """A panel for each title `what: quantity`, a line for each objective: the geometric mean over seeds and their range
    against the value of a setting. A run that diverged (inf) counts as twice the largest value: PNG.
    """
    figure, axes = plt.subplots(1, len(series), figsize=(5 * len(series), 4.6), squeeze=False, layout="constrained")
    for ax, (title, lines) in zip(axes[0], series.items(), strict=True):
        finite = [v for line in lines.values() for values in line.values() for v in values if np.isfinite(v)]
        top = 2 * max(finite, default=1)
        ticks = list(dict.fromkeys(x for line in lines.values() for x in line))
        ticks.sort(key=lambda x: float(x) if not isinstance(x, str) else 0.0)  # text stays in its order
        for number, (name, line) in enumerate(lines.items()):
            x = sorted(map(ticks.index, line))
            clipped = [np.minimum(line[ticks[place]], top) for place in x]
            mean = [np.exp(np.mean(np.log(values))) for values in clipped]
            style = _style(number)
            ax.plot(x, mean, **style, marker="o", markersize=3, label=name)
            ax.vlines(x, [min(v) for v in clipped], [max(v) for v in clipped], color=style["color"], alpha=0.5)
        ax.set_xticks(range(len(ticks)), [value if isinstance(value, str) else f"{value:g}" for value in ticks])
        if top > 6 * min(finite, default=top):
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=0)
        what, _, quantity = title.partition(": ")
        ax.set(title=what, xlabel=xlabel, ylabel=quantity)
        ax.grid(alpha=0.3)
    if len(lines) > 1:
        axes[0, -1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def cost(merged: list[Row]) -> bytes:
    """Time and memory relative to flow matching, two bars for each row of `eval.cost`, named by what saves
    something: what was measured and, hollow, what was counted: PNG."""
    panels = {
        "time": {"step_seconds": "step, measured", "flops": "operations, counted"},
        "memory": {"peak_bytes": "peak, measured", "residual_bytes": "residuals, counted"},
    }
    plain = {"remat": "none", "microbatches": 1, "dtype": "float32"}
    labels = [
        ", ".join([row["objective"], *(f"{name}={row[name]}" for name in plain if row[name] != plain[name])])
        for row in merged
    ]
    figure, axes = plt.subplots(
        1, 2, figsize=(11, 1.3 + 0.3 * len(merged)), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (what, kinds) in zip(axes[0], panels.items(), strict=True):
        measured, counted = ([row["relative"].get(name, 0) for row in merged] for name in kinds)
        solid, hollow = kinds.values()
        bars = []
        if any(counted):
            bars = ax.barh(range(len(merged)), counted, 0.8, label=hollow, facecolor="none", edgecolor="black")
        if any(measured):
            bars = ax.barh(range(len(merged)), measured, 0.5, label=solid, color="tab:blue")
        if bars:
            values = [f"{value:.2f}" if value else "" for value in bars.datavalues]
            ax.bar_label(bars, values, padding=3, fontsize="small")
        ax.axvline(1, color="tab:gray", linewidth=1, linestyle="--")
        ax.set(xlabel=f"{what} relative to flow matching without remat", ylim=(len(merged) - 0.5, -0.5))
        ax.margins(x=0.12)
        ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    axes[0, 0].set_yticks(range(len(merged)), labels, fontsize="small")
    return png(figure)


def png(figure: Figure) -> bytes:
    """Closes the figure."""
    return _file(figure, "png", dpi=150)


def svg(figure: Figure) -> bytes:
    """Closes the figure. The same figure gives the same bytes."""
    with plt.rc_context({"svg.hashsalt": "sgflow"}):
        return _file(figure, "svg", metadata={"Date": None})


def _file(figure: Figure, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    plt.close(figure)
    return buffer.getvalue()
