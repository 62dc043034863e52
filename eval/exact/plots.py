"""Figures of the comparisons with exact maps and of the ablations."""

import numpy as np

from eval.figure import plt, png, style
from eval.tables.store import Values


def stationarity(found: list[Values]) -> bytes:
    """z of the expected gradient at the exact and the wrong maps, for each row of `eval.stationarity`. PNG."""
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


def toy_maps(found: list[Values]) -> bytes:
    """Learned and exact f(0, 1, .): a panel for each data set and objective, from its first run that converged. PNG."""
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
    """The geometric mean over seeds, and their range, against the value of a setting. PNG.

    series: {"panel: quantity": {line: {value of the setting: [one value a seed]}}}. A run that diverged (inf) is drawn
    at twice the largest finite value.
    """
    figure, axes = plt.subplots(1, len(series), figsize=(5 * len(series), 4.6), squeeze=False, layout="constrained")
    for ax, (title, lines) in zip(axes[0], series.items(), strict=True):
        finite = [v for line in lines.values() for values in line.values() for v in values if np.isfinite(v)]
        top = 2 * max(finite, default=1)
        ticks = list(dict.fromkeys(x for line in lines.values() for x in line))
        ticks.sort(key=lambda x: float(x) if not isinstance(x, str) else 0.0)  # text keeps its order
        for number, (name, line) in enumerate(lines.items()):
            x = sorted(map(ticks.index, line))
            clipped = [np.minimum(line[ticks[place]], top) for place in x]
            mean = [np.exp(np.mean(np.log(values))) for values in clipped]
            line = style(number)
            ax.plot(x, mean, **line, marker="o", markersize=3, label=name)
            ax.vlines(x, [min(v) for v in clipped], [max(v) for v in clipped], color=line["color"], alpha=0.5)
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
