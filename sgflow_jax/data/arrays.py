"""Images and labels in one .npz file."""

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
from PIL import Image

from sgflow_jax.data.origin import Loaded, Origin
from sgflow_jax.interfaces import InputError

MOST_CLASSES = 100_000
_CHANNELS = ((1,), (3,), (4,))
_OTHERS = re.compile(r"samples|arr_0|steps_\d+")  # names of images in files of samples, also those of --mode=sample


def origin(file: Path) -> Origin:
    """A file with the arrays images, uint8 [N, H, W, C] or [N, H, W], and, optional, labels, integers [N] from 0, and
    classes, their names. Without names these are 0, 1, ... In place of images it may have samples, arr_0 (the name
    that numpy.savez gives) or steps_N."""
    found = file.stat()
    return Origin(str(file), [file.name, found.st_size, found.st_mtime_ns], lambda: _opened(file), True)


@dataclasses.dataclass(frozen=True)
class _Arrays:
    """See `origin.Opened`."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    notes = ()

    @property
    def size(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"image {index}"

    def load(self, index: int) -> Loaded:
        pixels = np.ascontiguousarray(self.images[index])
        content = hashlib.sha256(pixels.data).digest()
        return Loaded(Image.fromarray(pixels), int(self.labels[index]), content)


def _opened(file: Path) -> _Arrays:
    """InputError unless the arrays are as described."""

    def require(ok: bool, fault: str, remedy: str) -> None:
        if not ok:
            raise InputError(f"{file}: {fault}: {remedy}")

    try:
        with np.load(file, allow_pickle=False) as arrays:
            others = [name for name in arrays if _OTHERS.fullmatch(name)]
            names = ["images"] if "images" in arrays else others
            given = {name: arrays[name] for name in (*names[:1], "labels", "classes") if name in arrays}
    except Exception as error:  # np.load raises any kind, by which byte is damaged
        raise InputError(f"{file} cannot be read ({type(error).__name__}): make it with numpy.savez") from error
    require(bool(names), "it has no array called images", "save one, uint8 [N, H, W, C]")
    require(len(names) == 1, f"it has {', '.join(names)}, each of them images", "save one of them alone")
    images = given[names[0]]
    right = images.dtype == np.uint8 and images.ndim in (3, 4) and images.size and images.shape[3:] in ((), *_CHANNELS)
    what = f"{names[0]} is {images.dtype} {images.shape}"
    scaled = "save uint8, as (127.5 * x + 128).clip(0, 255).astype('uint8') does from [-1, 1]"
    require(images.dtype.kind != "f", what, scaled)
    first = images.ndim == 4 and (images.shape[1],) in _CHANNELS and images.shape[2] == images.shape[3]
    require(
        right or not first, f"{what}, with the channels before height and width", "save transpose(0, 2, 3, 1) of it"
    )
    require(right, what, "save uint8 [N, H, W] or [N, H, W, C] with C of 1, 3 or 4")
    images = images.squeeze(-1) if images.shape[3:] == (1,) else images
    labels = given.get("labels", np.zeros(len(images), int))
    right = labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
    right = right and labels.min() >= 0 and labels.max() < MOST_CLASSES
    require(
        right, f"labels is {labels.dtype} {labels.shape}", f"save {len(images)} integers from 0, below {MOST_CLASSES}"
    )
    count = int(labels.max()) + 1
    names = given.get("classes", np.array([str(number) for number in range(count)]))
    right = names.ndim == 1 and names.dtype.kind == "U" and len(set(names.tolist())) == len(names) >= count
    require(right, f"classes is {names.dtype} {names.shape}", f"save {count} or more different names as text")
    return _Arrays(images, labels, tuple(names.tolist()) if "labels" in given else ())
