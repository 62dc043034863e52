"""Images and labels in one .npz file."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from sgflow_jax.data.origin import Loaded, Origin
from sgflow_jax.interfaces import InputError

MOST_CLASSES = 100_000
_CHANNELS = ((1,), (3,), (4,))


def origin(file: Path) -> Origin:
    """A file with the arrays images, uint8 [N, H, W, C] or [N, H, W], and, optional, labels, integers [N] from 0, and
    classes, their names. Without names these are 0, 1, ..."""
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
            given = {name: arrays[name] for name in ("images", "labels", "classes") if name in arrays}
    except Exception as error:  # np.load raises any kind, by which byte is damaged
        raise InputError(f"{file} cannot be read ({type(error).__name__}): make it with numpy.savez") from error
    require("images" in given, "it has no array called images", "save one, uint8 [N, H, W, C]")
    images = given["images"]
    right = images.dtype == np.uint8 and images.ndim in (3, 4) and images.size and images.shape[3:] in ((), *_CHANNELS)
    what = f"images is {images.dtype} {images.shape}"
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
