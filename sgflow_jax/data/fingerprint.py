"""Fingerprints: few digits by which parameters, images and files are told apart."""

import hashlib
from typing import Protocol

import numpy as np

DIGITS = 12  # of a SHA-256
WHOLE = 100_000  # most examples of which all are looked at; of larger sets, WITNESSES
WITNESSES = 4096
CHUNK = 1000  # examples in memory at a time


class Readable(Protocol):
    """Examples by their number: what `data.Source` reads."""

    @property
    def size(self) -> int: ...

    def read(self, indices: np.ndarray) -> np.ndarray: ...


def of_arrays(*arrays: np.ndarray) -> str:
    """The first 12 digits of the SHA-256 of arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:DIGITS]


def of_examples(source: Readable) -> str:
    """As `of_arrays` of all examples, in order.

    Of a source of more than WHOLE, which takes minutes to read, it is of their number and WITNESSES spread evenly: it
    does not tell sets apart that differ in other examples only.
    """
    whole = source.size <= WHOLE
    digest = hashlib.sha256(b"" if whole else f"{source.size}".encode())
    chosen = spread(source.size, source.size if whole else WITNESSES)
    for start in range(0, len(chosen), CHUNK):
        part = source.read(chosen[start : start + CHUNK])
        if start == 0:
            digest.update(f"{part.dtype.str}{(len(chosen), *part.shape[1:])}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:DIGITS]


def spread(size: int, count: int) -> np.ndarray:
    """`count` of the numbers below `size` spread evenly, or all if there are no more, in order."""
    return np.linspace(0, size - 1, min(count, size)).round().astype(int)
