"""Real examples as evaluation reads them: in an order, a chunk at a time, so that they need not fit in memory."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from sgflow_jax import data
from sgflow_jax.data import fingerprint

CHUNK = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Those of a source at `indices` [n], in that order."""

    source: data.Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: slice) -> "Examples":
        return Examples(self.source, self.indices[chosen])

    def read(self) -> np.ndarray:
        """All of them, uint8 [n, H, W, C] or float32 [n, D]."""
        return self.source.read(self.indices)

    def chunks(self) -> Iterator[np.ndarray]:
        """All of them, CHUNK at a time."""
        for start in range(0, len(self), CHUNK):
            yield self[start : start + CHUNK].read()


def shuffled(source: data.Source) -> Examples:
    """All of a source's, in the one random order in which statistics are taken, whatever order the data set has."""
    return Examples(source, np.random.default_rng(0).permutation(source.size))


def spread(source: data.Source, count: int) -> Examples:
    """`count` of a source's spread evenly over it, or all if there are no more, in order."""
    return Examples(source, fingerprint.spread(source.size, count))
