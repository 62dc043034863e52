"""What a data set is, and what all data sets share."""

import abc
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from sgflow_jax.data import fingerprint

# Tags that separate the random streams of one seed.
ORDER, FLIP, DRAW, REFERENCE, TEST = range(5)


class Source(Protocol):
    """A data set: endless batches for training, and a fixed set of examples to compare with.

    Batch `step` is a pure function of (seed, step, batch_size), whatever the number of processes and whether or not the
    run was resumed. The step in a checkpoint is therefore the whole state of the data.
    """

    @property
    def size(self) -> int:
        """Number of examples that `read` can return."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, of labels 0, 1, ...; () for data without labels."""

    @property
    def labels(self) -> np.ndarray:
        """The labels of the examples that `read` can return, int32 [size]; 0 for data without labels."""

    @property
    def fingerprint(self) -> str:
        """`fingerprint.of_examples`, computed once."""

    def batches(self, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """Yields the rows `rows` [b] of batches start, start + 1, ...: "x" [b, ...], uint8 images or float32 points,
        and "label" [b] int32. Close it when done, because it may hold threads and processes."""

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The examples `indices` [n], each from 0 to size - 1, in that order and never mirrored: [n, ...]."""

    def identity(self) -> dict[str, Any]:
        """JSON-serialisable identity of the data set: "name" and "split"; where examples are read rather than drawn,
        also "examples", their number, and "fingerprint"; where they have labels, also "classes", a list of [name,
        number of examples] in the order of the labels, and "labels", the fingerprint of these."""


class Request(NamedTuple):
    """A requested data set, by the fields of a configuration's section `data`.

    data_dir: of TFDS. flip: mirror images at random. num_workers: processes that decode; 0: threads. dir: folder, .npz
    or .zip of images. size: height and width to crop and resize images to; 0: the data set's own. channels: of images,
    1 or 3; 0: the data set's own. skip_damaged: leave out images that cannot be read. test_share: of the images, held
    out as the test split.
    """

    name: str
    data_dir: str = ""
    flip: bool = False
    split: str = "train"
    num_workers: int = 0
    dir: str = ""
    size: int = 0
    channels: int = 0
    skip_damaged: bool = False
    test_share: float = 0.0


def identity_of(source: Source) -> dict[str, Any]:
    """`Source.identity` of examples that are read."""
    found = {"name": source.name, "split": source.split, "examples": source.size, "fingerprint": source.fingerprint}
    if not source.classes:
        return found
    counts = np.bincount(source.labels, minlength=len(source.classes))
    classes = [[name, int(count)] for name, count in zip(source.classes, counts, strict=True)]
    return {**found, "classes": classes, "labels": fingerprint.of_arrays(source.labels)}


class Stepwise(abc.ABC):
    """A source that computes any batch directly from its step."""

    @abc.abstractmethod
    def batch(self, seed: int, step: int, batch_size: int, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """The rows `rows` of batch `step`, in the format of `Source.batches`."""

    def batches(self, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """See `Source`."""
        for step in itertools.count(start):
            yield self.batch(seed, step, batch_size, rows)


def half_mirrored(x: np.ndarray, seed: int, step: int, batch_size: int, rows: np.ndarray | slice) -> np.ndarray:
    """The rows `rows` of batch `step`, images [b, H, W, C], each mirrored left to right with probability 1/2."""
    mirrored = np.random.default_rng([FLIP, seed, step]).random(batch_size)[rows] < 0.5
    return np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
