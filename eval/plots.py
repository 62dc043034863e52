"""Figures of evaluation results."""

import io
from collections import defaultdict

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullLocator, ScalarFormatter

from eval.results import Row


def distance_curve(rows: list[Row]) -> bytes:
    """Fréchet distance against the number of sampling steps (logarithmic), a line for each series of rows: PNG."""
    series = defaultdict(dict)
    for row in rows:
        what = row.identity
        name = f"{what.objective} ({what.method}), {what.features}, {what.num_samples:,} samples"
        name += f", checkpoint {what.checkpoint_step:,}, seed {what.seed}"
        series[name][what.steps] = row.value

    figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for name, points in series.items():
        steps = sorted(points)
        ax.plot(steps, [points[n] for n in steps], marker="o", label=name)
        for n in steps:
            ax.annotate(f"{points[n]:.3g}", (n, points[n]), textcoords="offset points", xytext=(4, 6), fontsize="small")
    ax.set_xscale("log")
    ax.set_xticks(sorted({row.identity.steps for row in rows}))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.1, y=0.12)
    values = [row.value for row in rows]
    if max(values) > 10 * min(values) > 0:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlabel("sampling steps (network calls)")
    ax.set_ylabel("Fréchet distance")
    ax.set_title(f"{rows[0].identity.data}, against {rows[0].reference_count:,} examples")
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    plt.close(figure)
    return buffer.getvalue()
