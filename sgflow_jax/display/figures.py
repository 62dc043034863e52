"""Pictures of generated examples: image grids and point clouds, as uint8 arrays and PNG bytes."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

MIN_TILE = 48
TITLE_SIZE = 14
EXACT = {"color": "black", "linewidth": 1.2}
CONTOURS = {"colors": "black", "linewidths": 0.6}  # at 1, 2 and 3 standard deviations of a single Gaussian
MOST_CLASSES = 16  # with rows of their own in a picture of `by_calls`
MOST_LETTERS = 24  # of the name of a class in a title
SHOWN = {3: 16, 1: 4096}  # examples in a picture of `by_calls`: images [H, W, C], points [D]

Density = Callable[[np.ndarray], np.ndarray]  # points [n, D] -> [n]


def image_grid(rows: list[np.ndarray], titles: Sequence[str] = (), pad: int = 2) -> np.ndarray:
    """Draws rows of images, each uint8 [n, H, W, C] with C of 1 or 3, as one RGB picture uint8 [h, w, 3].

    Small images are enlarged by an integer factor, without smoothing, to at least MIN_TILE pixels. titles: of the rows,
    drawn to their left.
    """
    height, width = rows[0].shape[1:3]
    zoom = max(1, -(-MIN_TILE // height))
    columns = max(len(row) for row in rows)
    tile_h, tile_w = height * zoom + pad, width * zoom + pad
    picture = np.full((len(rows) * tile_h + pad, columns * tile_w + pad, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = pad + i * tile_h, pad + j * tile_w
            enlarged = np.asarray(image).repeat(zoom, axis=0).repeat(zoom, axis=1)
            picture[top : top + height * zoom, left : left + width * zoom] = enlarged
    return np.concatenate([_titles(titles, len(picture), tile_h, pad), picture], axis=1) if titles else picture


def _titles(titles: Sequence[str], height: int, tile: int, pad: int) -> np.ndarray:
    """Draws a white strip of that height with one title per row of tiles."""
    # Pillow's own font lacks most letters beyond ASCII, which classes may have.
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), TITLE_SIZE)
    width = max(round(font.getlength(title)) for title in titles) + 2 * TITLE_SIZE
    strip = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(strip)
    for i, title in enumerate(titles):
        draw.text((width - TITLE_SIZE, pad + (i + 0.5) * tile), title, "black", font, anchor="rm")
    return np.asarray(strip)


def point_panels(panels: dict[str, np.ndarray], density: Density | None = None) -> np.ndarray:
    """Draws points [n, 1] as a histogram or [n, 2] as a scatter plot, one panel per title: uint8 [h, w, 3].

    density: of the data, drawn over each panel as a curve or as contours.
    """
    # Not pyplot, which would choose a backend for every importer.
    figure = Figure(figsize=(3 * len(panels), 3.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    everything = np.concatenate(list(panels.values()))
    low, high = np.quantile(everything, [0.001, 0.999], axis=0)
    margin = 0.1 * (high - low) + 1e-6
    for ax, (title, points) in zip(axes[0], panels.items(), strict=True):
        ax.set_title(title.replace("$", r"\$"))  # or matplotlib parses it as TeX
        ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
        if points.shape[1] == 1:
            ax.hist(points[:, 0], bins=np.linspace(low[0] - margin[0], high[0] + margin[0], 81), density=True)
            ax.set_xlabel("x")
            if density is not None:
                x = np.linspace(*ax.get_xlim(), 400)
                ax.plot(x, density(x[:, None]), **EXACT, label="exact")
                ax.legend(fontsize="small")
        else:
            ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
            ax.set_aspect("equal")
            ax.scatter(points[:, 0], points[:, 1], s=1, alpha=0.5, linewidths=0)
            if density is not None:
                x, y = np.meshgrid(np.linspace(*ax.get_xlim(), 200), np.linspace(*ax.get_ylim(), 200))
                z = density(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
                ax.contour(x, y, z, levels=z.max() * np.exp(-0.5 * np.array([9, 4, 1])), **CONTOURS)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def by_calls(
    examples: dict[int, np.ndarray],
    density: Density | None = None,
    labels: np.ndarray | None = None,
    names: Sequence[str] = (),
) -> np.ndarray:
    """Draws the first SHOWN examples for each number of network calls: a row of images, or a panel of points.

    density: as in `point_panels`. labels: of the images; then the first MOST_CLASSES classes that occur have rows of
    their own, named by `names` [number of classes].
    """
    shown = {in_steps(calls): found[: SHOWN[found.ndim - 1]] for calls, found in examples.items()}
    if next(iter(shown.values())).ndim < 4:
        return point_panels(shown, density)
    if labels is None:
        return image_grid(list(shown.values()), list(shown))
    rows, titles = [], []
    for label in list(dict.fromkeys(labels.tolist()))[:MOST_CLASSES]:
        for calls, found in examples.items():
            rows.append(found[labels == label][: SHOWN[3]])
            titles.append(f"{shortened(names[label])}, {in_steps(calls)}")
    return image_grid(rows, titles)


def shortened(name: str) -> str:
    """A class name of at most MOST_LETTERS printable characters."""
    name = "".join(c if c.isprintable() else " " for c in name)
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


def in_steps(calls: int) -> str:
    """1 step, 2 steps, ..."""
    return f"{calls} step{'s' * (calls > 1)}"


def png(picture: np.ndarray) -> bytes:
    """Encodes a picture, uint8 [h, w, 3] or grey [h, w, 1], as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, "png")
    return buffer.getvalue()
