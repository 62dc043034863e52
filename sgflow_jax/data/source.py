"""What a data set is, and what the batches of all of them have in common."""

import abc
import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

# Tags that keep the random streams of one seed apart.
ORDER, FLIP, DRAW, REFERENCE, TEST = range(5)


class Source(Protocol):
    """A data set: batches to train on without end, and examples to compare with.

    Batch number `step` is a pure function of (seed, step, batch_size): the same for any number of processes, and in a
    run that was resumed. The step in a checkpoint is therefore all of the data's state.
    """

    @property
    def size(self) -> int:
        """How many examples `read` can give."""

    def batches(self, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """Yields of the batches number start, start + 1, ... the rows at the positions `rows` [b]: "x" [b, ...], uint8
        images or float32 points, and "label" [b] int32. Close it when done: it may hold threads and processes."""

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The examples `indices` [n], each from 0 to size - 1, in that order and never mirrored: [n, ...]."""

    def identity(self) -> dict[str, Any]:
        """What tells a data set from another, in JSON: "name", "split", and of examples that are read rather than drawn
        "examples", their number, and their "fingerprint" (`fingerprint.of_examples`), computed once."""


class Stepwise(abc.ABC):
    """A source that makes every batch from its number alone."""

    @abc.abstractmethod
    def batch(self, seed: int, step: int, batch_size: int, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """The rows `rows` of batch `step`, as `Source.batches` describes them."""

    def batches(self, seed: int, start: int, batch_size: int, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """See `Source`."""
        for step in itertools.count(start):
            yield self.batch(seed, step, batch_size, rows)


def half_mirrored(x: np.ndarray, seed: int, step: int, batch_size: int, rows: np.ndarray | slice) -> np.ndarray:
    """The rows `rows` of batch `step`, images [b, H, W, C], each mirrored left to right with probability 1/2."""
    mirrored = np.random.default_rng([FLIP, seed, step]).random(batch_size)[rows] < 0.5
    return np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
