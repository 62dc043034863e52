"""Real examples in a fixed order, read in chunks, so that they need not fit in memory."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from sgflow_jax import data
from sgflow_jax.data import fingerprint

CHUNK = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a source at `indices` [n], in that order."""

    source: data.Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: slice) -> "Examples":
        return Examples(self.source, self.indices[chosen])

    def read(self) -> np.ndarray:
        """All examples, uint8 [n, H, W, C] or float32 [n, D]."""
        return self.source.read(self.indices)

    def chunks(self) -> Iterator[np.ndarray]:
        """All examples, CHUNK at a time."""
        for start in range(0, len(self), CHUNK):
            yield self[start : start + CHUNK].read()


def shuffled(source: data.Source) -> Examples:
    """All examples of a source, in the fixed random order used for statistics, independent of the data set's order."""
    return Examples(source, np.random.default_rng(0).permutation(source.size))


def spread(source: data.Source, count: int) -> Examples:
    """At most `count` examples, spread evenly over a source, in order."""
    return Examples(source, fingerprint.spread(source.size, count))
