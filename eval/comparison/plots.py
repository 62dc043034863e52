"""Figures of a comparison."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from eval.comparison import summary
from eval.comparison.summary import EULER, OWN, Group
from eval.figure import MARKERS, panels, plain, style
from eval.tables.store import Values
from sgflow_jax.display.figures import in_steps

# One panel each, so that few lines share one, and one for all other objectives; those in ALWAYS are in every panel.
FAMILIES = {
    "along the Eulerian equation": ("mean_flow", "improved_mean_flow", "esd", "slim_esd"),
    "along the Lagrangian equation": ("lsd", "slim_lsd", "fmm"),
    "a jump equals two, or a later one": ("psd", "shortcut", "ctm", "consistency"),
}
OTHERS = "others"
WHOLE = "beside real examples"
WIDE = 20.0  # of an axis: the ratio of its ends from which on it has fewer ticks
ALWAYS = ("sgflow", "flow_matching")


def curves(chosen: list[Group], real: Values | None, distance: str) -> Figure:
    """The distance against the number of steps: mean and range over seeds.

    A panel of those in ALWAYS with the distances between real examples, and a panel for each of FAMILIES that shows
    maps in detail: what is above the distance of all maps in the fewest steps leaves it at the top. A single objective
    has the first panel only.

    real: distances between real examples, of `floor.known`, drawn as lines; None: not measured.
    """
    families, calls = _families(chosen) if len(chosen) > 1 else {}, summary.calls_of(chosen)
    whole = [group for group in chosen if not _family(group)] or chosen
    figure, axes = panels(1 + len(families), 2, (5.4, 3.8))
    for ax, (title, groups) in zip(axes, ((WHOLE, whole), *families.items()), strict=True):
        for number, group in enumerate(groups):
            _line(ax, calls, [group.values(n) for n in calls], group.name, number)
        _steps_axis(ax, calls, distance)
        ax.set_title(title, fontsize="medium")
    for split, line in (("test", ":"), ("train", "--")):
        if real is not None and real[split] is not None:
            label = f"real: {real['counts'][split]:,} {split}"
            axes[0].axhline(real[split], color="black", linewidth=0.8, linestyle=line, label=label)
    for ax in axes:
        ax.legend(fontsize="x-small")
    _share_y(axes[:1])
    if families:
        _share_y(axes[1:], _largest([group.values(calls[0]) for group in chosen if group.jumps]) if calls else None)
    return figure


def diagonals(chosen: list[Group], distance: str) -> Figure:
    """A panel for each objective: its own method, and Euler's method on the same network's diagonal. chosen: those that
    were measured by their own."""
    figure, axes = panels(len(chosen), 5, (2.6, 2.4))
    calls = summary.calls_of(chosen)
    for ax, group in zip(axes, chosen, strict=True):
        for number, (how, label) in enumerate(((OWN, "its own method"), (EULER, "Euler on its diagonal"))):
            _line(ax, calls, [group.values(n, how) for n in calls], label, number)
        _steps_axis(ax, calls, "")
        ax.set_title(textwrap.fill(plain(group.name).replace(",", ", "), 36), fontsize="small")
    axes[0].legend(fontsize="x-small")
    figure.supxlabel("sampling steps (network calls)", fontsize="small")
    figure.supylabel(textwrap.fill(plain(distance), 40), fontsize="small")
    _share_y(axes)
    return figure


def learning(chosen: list[Group], counts: Sequence[int], distance: str) -> Figure:
    """The distance against the images seen: a row of panels for each number of steps, a panel for each of FAMILIES.
    What is above the first distance of all maps leaves a panel at the top."""
    families = _families(chosen)
    figure, axes = panels(len(counts) * len(families), len(families), (4.4, 3.8))
    rows = axes.reshape(len(counts), len(families))
    for row, calls in zip(rows, counts, strict=True):
        for ax, (title, groups) in zip(row, families.items(), strict=True):
            for number, group in enumerate(groups):
                shares = summary.shares_of([group])
                values = [group.values(calls, OWN, share) for share in shares]
                _line(ax, [group.images(share) for share in shares], values, group.name, number)
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_title(": ".join(filter(None, (in_steps(calls), title))), fontsize="medium")
            ax.set(xlabel="images seen", ylabel=f"{plain(distance)} (lower is better)")
            ax.grid(alpha=0.3)
            ax.legend(fontsize="x-small")
        first = summary.shares_of(chosen)[0]
        _share_y(row, _largest([group.values(calls, OWN, first) for group in chosen if group.jumps]))
    return figure


def _families(chosen: list[Group]) -> dict[str, list[Group]]:
    """The groups of each panel, by its title; those of ALWAYS are in every panel, first. Without others one panel."""
    titles = {group.name: _family(group) for group in chosen}
    shown = [title for title in (*FAMILIES, OTHERS) if title in titles.values()] or [""]
    always = [group for group in chosen if not titles[group.name]]
    return {title: always + [group for group in chosen if title and titles[group.name] == title] for title in shown}


def _family(group: Group) -> str:
    """The title of the panel of a group's objective, whatever its options and its start; "" for every panel."""
    objective = next(iter(group.rows.values()))["objective"].partition("(")[0]
    if objective in ALWAYS:
        return ""
    return next((title for title, members in FAMILIES.items() if objective in members), OTHERS)


def _largest(found: list[dict[int, float]]) -> float | None:
    """The largest of the distances of all objectives and seeds, if there are any."""
    return max((value for values in found for value in values.values()), default=None)


def _line(ax, x: Sequence[float], values: Sequence[dict[int, float]], label: str, number: int) -> None:
    """Mean and range over seeds; points without a value are left out."""
    points = [(place, list(each.values())) for place, each in zip(x, values, strict=True) if each]
    if not points:
        return
    places, found = zip(*points, strict=True)
    look = style(number)
    means = [np.mean(each) for each in found]
    ax.plot(places, means, **look, marker=MARKERS[number % len(MARKERS)], markersize=4, label=plain(label))
    ax.fill_between(
        places,
        [min(each) for each in found],
        [max(each) for each in found],
        color=look["color"],
        alpha=0.2,
        linewidth=0,
    )


def _steps_axis(ax, calls: Sequence[int], distance: str) -> None:
    ax.set_xscale("log")
    ax.set_xticks(calls)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    if distance:
        ax.set(xlabel="sampling steps (network calls)", ylabel=f"{plain(distance)} (lower is better)")
    ax.grid(alpha=0.3)


def _share_y(axes, top: float | None = None) -> None:
    """One logarithmic y axis for all panels. top: the largest distance shown; by default, all are."""
    limits = np.array([ax.dataLim.intervaly for ax in axes])
    low, high = limits[:, 0].min(), top or limits[:, 1].max()
    if not 0 < low < high < np.inf:
        return
    for ax in axes:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.1, high * 1.1)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > WIDE else (1, 1.5, 2, 3, 5, 7)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_locator(NullLocator())
