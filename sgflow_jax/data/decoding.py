"""Decodes images in threads, in order and with bounded memory."""

import collections
import concurrent.futures
import dataclasses
import errno
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from sgflow_jax import terminal
from sgflow_jax.data import pictures
from sgflow_jax.data.origin import Opened
from sgflow_jax.interfaces import InputError

THREADS = min(16, os.cpu_count() or 1)
CHUNK = 16  # images that a thread decodes in one go
_GONE = (errno.ENOENT, errno.ELOOP)  # a link that leads nowhere
AHEAD = 4  # chunks for each thread that are decoded and wait


@dataclasses.dataclass(frozen=True)
class Wanted:
    """size: height and width, pixels. channels: 1 or 3. test_share: of the contents, held out as the test split."""

    size: int
    channels: int
    test_share: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size, self.size, self.channels

    def pixels(self, image: Image.Image) -> np.ndarray:
        """uint8 [size, size, channels], see `pictures.square`."""
        return pictures.square(image, self.size, self.channels)

    def held_out(self, content: bytes) -> bool:
        """Whether content with this SHA-256 is in the test split: the hash as a number in [0, 1) is below the share."""
        return int.from_bytes(content[:8]) / 2**64 < self.test_share if content else False


class Decoded(NamedTuple):
    """pixels: uint8 [H, W, C]. label, content, test: see `origin.Loaded`."""

    pixels: np.ndarray
    label: int
    content: bytes
    test: bool


def decode_all(
    opened: Opened,
    pixels: Callable[[Image.Image], np.ndarray],
    silent: bool,
    chosen: Sequence[int] | None = None,
) -> Iterator[tuple[str, Decoded | str]]:
    """Yields the name of every image, in order, and the image, or the fault if it is damaged. Shows a progress bar,
    unless `silent`. Close it when done. InputError for a file that may not be read, or a disk that fails.

    pixels: of a decoded image, uint8 [H, W, C]. chosen: the numbers of the images, in this order; by default all."""
    chosen = range(opened.size) if chosen is None else chosen
    starts = iter(range(0, len(chosen), CHUNK))
    waiting = collections.deque()
    executor = concurrent.futures.ThreadPoolExecutor(THREADS)

    def submit() -> None:
        if (start := next(starts, None)) is not None:
            chunk = chosen[start : start + CHUNK]
            waiting.append(executor.submit(lambda: [_decode(opened, int(index), pixels) for index in chunk]))

    try:
        with (
            terminal.bar(silent, total=len(chosen), desc="preparing", unit=" images") as bar,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of Pillow: images that are large, or whose EXIF data are odd
            for _ in range(AHEAD * THREADS):
                submit()
            while waiting:
                found = waiting.popleft().result()
                submit()
                yield from found
                bar.update(len(found))
    finally:
        executor.shutdown(cancel_futures=True)


def _decode(opened: Opened, index: int, pixels: Callable[[Image.Image], np.ndarray]) -> tuple[str, Decoded | str]:
    name = opened.name(index)
    try:
        image, *rest = opened.load(index)
        return name, Decoded(pixels(image), *rest)
    except MemoryError:
        raise
    except OSError as error:
        if error.errno not in (None, *_GONE):  # not the fault of the image, and it may be right the next time
            raise InputError(f"{name} cannot be read ({error.strerror}): make it readable, and start again") from error
        return name, _fault(error)
    except Exception as error:  # decoders raise any kind, by which byte is damaged
        return name, _fault(error)


def _fault(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "no PNG, JPEG or WebP"  # else the text has the address of an object
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return text[:100] or type(error).__name__
