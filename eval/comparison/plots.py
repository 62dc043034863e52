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
ALWAYS = ("sgflow", "flow_matching")


def curves(chosen: list[Group], real: Values | None, distance: str) -> Figure:
    """The distance against the number of steps: mean and range over seeds, a panel for each of FAMILIES.

    real: distances between real examples, of `floor.known`, drawn as lines; None: not measured.
    """
    families = {group.name: _family(group) for group in chosen}
    titles = [title for title in (*FAMILIES, OTHERS) if title in families.values()] or [""]
    shown = {title: [group for group in chosen if families[group.name] in (title, "")] for title in titles}
    figure, axes = panels(len(shown), 3, (4.4, 3.8))
    for ax, (title, groups) in zip(axes, shown.items(), strict=True):
        calls = summary.calls_of(groups)
        for number, group in enumerate(sorted(groups, key=lambda group: families[group.name] != "")):
            _line(ax, calls, [group.values(n) for n in calls], group.name, number)
        for split, line in (("test", ":"), ("train", "--")):
            if real is not None and real[split] is not None:
                label = f"real: {real['counts'][split]:,} {split}"
                ax.axhline(real[split], color="black", linewidth=0.8, linestyle=line, label=label)
        _steps_axis(ax, calls, distance)
        ax.set_title(title, fontsize="medium")
        ax.legend(fontsize="x-small")
    _share_y(axes[: len(shown)])
    return figure


def diagonals(chosen: list[Group], distance: str) -> Figure:
    """A panel for each objective: its own method, and Euler's method on the same network's diagonal."""
    chosen = [group for group in chosen if any(group.values(n) for n in summary.calls_of([group]))]
    figure, axes = panels(len(chosen), 5, (2.6, 2.4))
    calls = summary.calls_of(chosen)
    for ax, group in zip(axes, chosen, strict=True):
        for number, (how, label) in enumerate(((OWN, "its own method"), (EULER, "Euler on its diagonal"))):
            _line(ax, calls, [group.values(n, how) for n in calls], label, number)
        _steps_axis(ax, calls, "")
        ax.set_title(plain(group.name), fontsize="small")
    axes[0].legend(fontsize="x-small")
    figure.supxlabel("sampling steps (network calls)", fontsize="small")
    figure.supylabel(textwrap.fill(plain(distance), 40), fontsize="small")
    _share_y(axes)
    return figure


def learning(chosen: list[Group], counts: Sequence[int], distance: str) -> Figure:
    """The distance against the images seen: a panel for each number of steps, a line for each objective."""
    figure, axes = panels(len(counts), 2, (6.0, 4.4))
    for ax, calls in zip(axes, counts, strict=True):
        for number, group in enumerate(chosen):
            shares = sorted({d["share"] for row in group.rows.values() for d in row["distances"]})
            found = [(share, group.values(calls, OWN, share)) for share in shares]
            if images := group.mean("images"):
                _line(ax, [share * images for share, _ in found], [each for _, each in found], group.name, number)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set(xlabel="images seen", ylabel=f"{plain(distance)} (lower is better)", title=in_steps(calls))
        ax.grid(alpha=0.3)
    axes[-1].legend(fontsize="x-small", ncols=2)
    _share_y(axes)
    return figure


def _family(group: Group) -> str:
    """The title of the panel of a group's objective, whatever its options and its start; "" for every panel."""
    objective = next(iter(group.rows.values()))["objective"].partition("(")[0]
    if objective in ALWAYS:
        return ""
    return next((title for title, members in FAMILIES.items() if objective in members), OTHERS)


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


def _share_y(axes) -> None:
    """One logarithmic y axis for all panels."""
    limits = np.array([ax.dataLim.intervaly for ax in axes])
    low, high = limits[:, 0].min(), limits[:, 1].max()
    if not 0 < low < high < np.inf:
        return
    for ax in axes:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.1, high * 1.1)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_locator(NullLocator())
