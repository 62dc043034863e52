"""Fingerprints: short hashes that identify parameters, images and files."""

import hashlib
from typing import Protocol

import numpy as np

DIGITS = 12  # of a SHA-256
WHOLE = 100_000  # largest number of examples hashed completely; of larger sets, only WITNESSES examples
WITNESSES = 4096
CHUNK = 1000  # examples in memory at once


class Readable(Protocol):
    """The part of `data.Source` that reads examples by index."""

    @property
    def size(self) -> int: ...

    def read(self, indices: np.ndarray) -> np.ndarray: ...


def of_arrays(*arrays: np.ndarray) -> str:
    """First 12 digits of the SHA-256 of the dtypes, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:DIGITS]


def of_examples(source: Readable, whole: bool = False) -> str:
    """Equals `of_arrays` of one array of all examples, in order.

    For more than WHOLE examples, which take minutes to read, hashes their number and WITNESSES evenly spaced examples,
    unless `whole`: it misses differences in the others.
    """
    whole = whole or source.size <= WHOLE
    digest = hashlib.sha256(b"" if whole else f"{source.size}".encode())
    chosen = spread(source.size, source.size if whole else WITNESSES)
    for start in range(0, len(chosen), CHUNK):
        part = source.read(chosen[start : start + CHUNK])
        if start == 0:
            digest.update(f"{part.dtype.str}{(len(chosen), *part.shape[1:])}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:DIGITS]


def spread(size: int, count: int) -> np.ndarray:
    """`count` evenly spaced integers below `size`, ascending; all of them if size <= count."""
    return np.linspace(0, size - 1, min(count, size)).round().astype(int)
