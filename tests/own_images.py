"""Images of the user's own, made by number, in folders."""

from pathlib import Path

import numpy as np
from PIL import Image

from sgflow_jax import data

MIXED = ["cats, big/2.png", "cats, big/10.png", "Vögel/ä b.png", "Vögel/deeper/x.PNG", "a c/z.png"]


def pixels(number, size=4, channels=3):
    return np.random.default_rng(number).integers(256, size=(size, size, channels), dtype=np.uint8)


def write(file: Path, number: int, size: int = 4, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number, size)).save(file, **options)


def read(place, **options):
    return data.make("images", dir=str(place), **{"size": 4, **options})


def numbered(folder: Path, paths) -> Path:
    """A folder with image i, `pixels(i)`, at the i-th path."""
    for number, path in enumerate(paths):
        write(folder / path, number)
    return folder
