"""Images as they are in a folder, .npz or .zip: nothing is cropped or resized, and nothing is kept in the cache."""

import contextlib
import dataclasses
import functools

import numpy as np

from sgflow_jax.data import fingerprint, own, pictures
from sgflow_jax.data.decoding import decode_all
from sgflow_jax.data.origin import Opened
from sgflow_jax.interfaces import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Unaltered:
    """Images of one shape, (H, W, C), that of the first; decoded whenever they are read. title: for messages."""

    title: str
    opened: Opened
    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        return self.opened.size

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images `indices` [n], uint8 [n, H, W, C]; a grey image among others in colour has three equal channels.
        InputError for a damaged image, or one of another shape."""
        with contextlib.closing(decode_all(self.opened, pictures.unaltered, True, indices)) as images:
            return np.stack([self._checked(name, found) for name, found in images])

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `fingerprint.of_examples`. InputError as in `read`."""
        return fingerprint.of_examples(self)

    def _checked(self, name, found):
        if isinstance(found, str):
            raise InputError(f"{name} in {self.title} cannot be read ({found}): repair or remove it")
        height, width, channels = found.pixels.shape
        first = self.opened.name(0)
        if (height, width) != self.shape[:2]:
            raise InputError(
                f"{self.title} has images of two sizes, {first} of {_pixels(self.shape)} and {name} of "
                f"{_pixels(found.pixels.shape)}: make all of one size, as nothing is resized here"
            )
        if channels > self.shape[2]:
            raise InputError(
                f"{self.title} has grey and coloured images, {first} and {name}: make all grey, or all coloured"
            )
        return np.broadcast_to(found.pixels, self.shape)


def read(what: str, text: str) -> Unaltered:
    """Opens the images of a folder, .npz or .zip. what: the flag with its path, `text`. InputError if there are none,
    or the first is damaged."""
    origin = own.origin(what, text)
    opened = origin.open()
    with contextlib.closing(decode_all(opened, pictures.unaltered, True, range(1))) as images:
        ((name, found),) = images
    if isinstance(found, str):
        raise InputError(f"{name} in {origin.title} cannot be read ({found}): repair or remove it")
    return Unaltered(origin.title, opened, found.pixels.shape)


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"
