"""Embeds pictures in the page and writes them as files beside it."""

import base64
from typing import Any

from matplotlib.figure import Figure

from eval.figure import png, svg
from eval.page import gallery
from sgflow_jax.display import figures

Files = dict[str, bytes]  # pictures beside the page, by file name


def keep(files: Files, name: str, figure: Figure) -> None:
    """Adds a figure to the files, as SVG and PNG."""
    files[f"{name}.svg"], files[f"{name}.png"] = svg(figure), png(figure)


def vector(figure: Figure, text: str, caption: str = "") -> dict[str, Any]:
    """A figure for the page. text: alt text. caption: shown below the figure; "" for none."""
    shown = {"src": _inline(svg(figure), "svg+xml"), "alt": text}
    return {**shown, "caption": caption} if caption else shown


def picture(shown: gallery.Picture) -> dict[str, Any]:
    """An image of pixels for the page."""
    height, width, _ = shown.pixels.shape
    source = _inline(figures.png(shown.pixels), "png")
    return {"src": source, "alt": shown.text, "caption": shown.caption, "width": width, "height": height}


def file_name(what: str, label: str, files: Files) -> str:
    """A file name that no other picture has."""
    name = f"{what}_{''.join(c if c.isalnum() or c in '-_.' else '_' for c in label)}"
    while f"{name}.png" in files:
        name += "_"
    return f"{name}.png"


def _inline(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
