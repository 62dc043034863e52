"""Reads and writes .safetensors files: named arrays, and texts by name. Nothing in such a file can be executed."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

SUFFIX = ".safetensors"
MAX_HEADER = 2**24  # bytes; that of a network of 60 million parameters has 2^15


class TensorFile:
    """An open file. A context manager. shapes: of its arrays, by name. texts: its metadata.

    InputError if it is missing, damaged, or its header is unreasonably long.
    """

    def __init__(self, path: str | Path):
        self._path = path
        try:
            _check_header(path)
            self._file = safetensors.safe_open(path, framework="np")
            self.texts: dict[str, str] = self._file.metadata() or {}
            self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing: download it") from error
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise self._damaged(error) from error

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *_) -> None:
        self._file = None

    def array(self, name: str) -> np.ndarray:
        """A copy of an array. InputError for a type that numpy lacks."""
        try:
            return self._file.get_tensor(name)
        except (AttributeError, TypeError, ValueError, KeyError, safetensors.SafetensorError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return InputError(f"{self._path} cannot be read ({said:.120}): download it again")


def write(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Writes a file whole or not at all. InputError if it cannot be written."""
    disk.write_atomically(path, safetensors.numpy.save(dict(arrays), dict(texts)))


def _check_header(path: str | Path) -> None:
    """ValueError if the file declares a header that it does not contain, or a long one, which would fill the memory."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAX_HEADER):
        raise ValueError(f"it declares a header of {length:,} bytes")
