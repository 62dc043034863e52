"""Shared by all figures: panels, line styles, plain labels, PNG and SVG."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

MARKERS = "osD^vP*X"  # tell lines apart without colours


def style(number: int) -> dict[str, str]:
    """The style of line `number`: ten colours, then the same colours dashed, then dotted."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}


def plain(label: str) -> str:
    """Escapes $, or matplotlib parses it as TeX, and a first "_", or the legend omits the label."""
    escaped = label.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def scale_axis(ax, values: list[float]) -> None:
    """Makes the y axis logarithmic for values of several magnitudes; linear around zero if some are not positive."""
    sizes = np.abs([value for value in values if np.isfinite(value) and value != 0])
    if not len(sizes) or max(sizes) <= 10 * np.median(sizes) and max(sizes) <= 30 * min(sizes):
        return
    if len(sizes) == len(values) and min(values) > 0:
        ax.set_yscale("log")
    elif max(sizes) > 10 * np.median(sizes):
        ax.set_yscale("symlog", linthresh=np.median(sizes))


def panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure with `count` axes of that size in inches, in rows of `columns`; unused axes are hidden."""
    columns = min(count, columns)
    lines = -(-count // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(size[0] * columns, size[1] * lines), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, axes.ravel()[:count]


def png(figure: Figure) -> bytes:
    """Encodes the figure as PNG and closes it."""
    return _file(figure, "png", dpi=150)


def svg(figure: Figure) -> bytes:
    """Encodes the figure as SVG and closes it. The same figure gives the same bytes."""
    with plt.rc_context({"svg.hashsalt": "sgflow"}):
        return _file(figure, "svg", metadata={"Date": None})


def _file(figure: Figure, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    plt.close(figure)
    return buffer.getvalue()
