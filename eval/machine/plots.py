"""The figure of eval.cost."""

from eval.figure import plt, png
from eval.tables.store import Values


def cost(merged: list[Values]) -> bytes:
    """Time and memory relative to flow matching, for each row of `eval.cost`: solid bars are measured, hollow bars
    counted. PNG."""
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
