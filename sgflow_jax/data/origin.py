"""Where images come from before they are prepared: a folder, an archive, a file of arrays, a data set of TFDS."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from PIL import Image


class Loaded(NamedTuple):
    """One decoded image. content: the SHA-256 of what it was decoded from, which decides its split; b"" where the
    origin has splits of its own, and then `test` says whether it is of the test split."""

    image: Image.Image
    label: int
    content: bytes
    test: bool = False


class Opened(Protocol):
    """Images to decode, in a fixed order. Used by several threads at once."""

    @property
    def size(self) -> int:
        """Number of images, damaged ones too."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels 0, 1, ...; () without labels."""

    @property
    def notes(self) -> list[str]:
        """What was left out, a line each."""

    def name(self, index: int) -> str:
        """The name of an image, for errors."""

    def load(self, index: int) -> Loaded:
        """Reads and decodes an image. Any exception if it is damaged."""


class Origin(NamedTuple):
    """title: for messages. key: JSON-serialisable facts that change whenever an image may have changed. open: lists the
    images; InputError if there are none, or their arrangement has no meaning. numbered: labels are numbers of the
    data's own, so that a class without images keeps its place."""

    title: str
    key: Any
    open: Callable[[], Opened]
    numbered: bool
