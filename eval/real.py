"""Real examples as evaluation reads them: in an order, a chunk at a time, so that they need not fit in memory."""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from eval.features.interface import DIGITS
from sgflow_jax import data

CHUNK = 1000
WHOLE = 100_000  # most examples that a fingerprint is of; of larger sets it is of WITNESSES
WITNESSES = 4096


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
    return Examples(source, np.linspace(0, source.size - 1, min(count, source.size)).round().astype(int))


def fingerprint(source: data.Source) -> str:
    """The first 12 digits of the SHA-256 of a source's examples: their type, shape and bytes.

    Of a source of more than WHOLE, which takes minutes to read, it is of their number and WITNESSES spread evenly: it
    does not tell sets apart that differ in other examples only.
    """
    whole = source.size <= WHOLE
    digest = hashlib.sha256(b"" if whole else f"{source.size}".encode())
    chosen = spread(source, source.size if whole else WITNESSES)
    for start, part in enumerate(chosen.chunks()):
        if start == 0:
            digest.update(f"{part.dtype.str}{(len(chosen), *part.shape[1:])}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:DIGITS]
