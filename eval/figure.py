"""What the figures share: panels, styles of lines, plain labels, PNG and SVG."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

MARKERS = "osD^vP*X"  # so that lines differ without colours too


def style(number: int) -> dict[str, str]:
    """Of the number-th line: ten colours, then the same in dashes."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}


def plain(label: str) -> str:
    """Text that is no mathematics, and that a legend does not leave out for its first letter."""
    escaped = label.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def scale_axis(ax, values: list[float]) -> None:
    """Logarithmic for values of several sizes; where some are not positive, linear around zero."""
    sizes = np.abs([value for value in values if np.isfinite(value) and value != 0])
    if not len(sizes) or max(sizes) <= 10 * np.median(sizes) and max(sizes) <= 30 * min(sizes):
        return
    if len(sizes) == len(values) and min(values) > 0:
        ax.set_yscale("log")
    elif max(sizes) > 10 * np.median(sizes):
        ax.set_yscale("symlog", linthresh=np.median(sizes))


def panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure of `count` axes of that size in inches, in lines of `columns`; those left over are not shown."""
    columns = min(count, columns)
    lines = -(-count // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(size[0] * columns, size[1] * lines), squeeze=False, layout="constrained"
    )
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, axes.ravel()[:count]


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
