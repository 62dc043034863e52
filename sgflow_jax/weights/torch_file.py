"""Reads PyTorch weight files without PyTorch and without executing code from their pickles.

Supports the zip archives of torch >= 1.6, the older sequence of pickles and raw storages, and plain pickles whose
tensors are such sequences, as EDM's files are.
"""

import contextlib
import functools
import io
import math
import os
import pickle  # noqa: TID251 - writes two constants
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sgflow_jax.interfaces import InputError
from sgflow_jax.weights import torch_pickle
from sgflow_jax.weights.torch_pickle import Fault, Storage, Tensor

LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)  # magic number, protocol number
ZIP = b"PK\x03\x04"
PICKLE = b"\x80"  # with its protocol, from 2
MAX_SHARING = 8  # bytes of all tensors / bytes of the file, which exceeds 1 where tensors share a storage

Read = Callable[[], bytes | memoryview]  # the bytes of a storage


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict in file order: C-contiguous, with the saved shape and dtype.

    InputError if the file is missing or damaged, is not a state dict, or requests other Python objects.
    """
    with TorchFile(path) as file, _faults(path):
        content = file.content
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise Fault("is not a state dict", "save only the state dict")
        for key, tensor in content.items():
            if not isinstance(tensor, Tensor):
                raise Fault(f"contains {key!r:.80}, which is not a tensor", "save only the state dict")
        return file.arrays(content)


class TorchFile:
    """An open file. A context manager.

    content: its value, with a `Tensor` for each tensor and an `Inert` for each object that is no plain value.
    InputError as in `read`; any content will do.
    """

    def __init__(self, path: str | Path):
        self._path, self._stack = path, contextlib.ExitStack()
        with _faults(path), contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, "rb"))
            self._size = os.fstat(file.fileno()).st_size
            head = file.read(len(LEGACY))
            file.seek(0)
            if head.startswith(ZIP):
                archive = stack.enter_context(zipfile.ZipFile(file))
                self.content, self._storages = _open_zip(archive, self._size)
            elif head == LEGACY:
                self.content, self._storages = _open_legacy(file, self._size)
            elif head.startswith(PICKLE):
                self.content, self._storages = _open_pickle(file, self._size)
            else:
                raise Fault("is not a PyTorch weight file")
            self._stack = stack.pop_all()

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def flattened(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `torch_pickle.flattened`."""
        with _faults(self._path):
            return torch_pickle.flattened(self.content)

    def arrays(self, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Copies of these tensors of the file. Allocates nothing before every view is known to fit its storage."""
        with _faults(self._path):
            for key, tensor in tensors.items():
                if not _fits(tensor):
                    raise Fault(f"contains the tensor {key!r:.80}, which extends beyond its storage")
            total = sum(math.prod(t.shape) * np.dtype(t.storage.dtype).itemsize for t in tensors.values())
            if total > MAX_SHARING * self._size:
                raise Fault("shares its storages among too many tensors", "save the tensors as contiguous copies")
            return {key: self._array(key, tensor) for key, tensor in tensors.items()}

    def _array(self, key: str, tensor: Tensor) -> np.ndarray:
        storage, offset, shape, stride = tensor
        data = self._storages[storage.key]()
        if len(data) != storage.nbytes:
            raise Fault(f"contains the tensor {key!r:.80}, which extends beyond its storage")
        flat = np.frombuffer(data, storage.dtype)[offset:]
        strides = [step * flat.itemsize for step in stride]
        # A copy in C order. Unlike np.ascontiguousarray, this keeps the shape () of scalars.
        return np.array(np.lib.stride_tricks.as_strided(flat, shape, strides), order="C")


@contextlib.contextmanager
def _faults(path: str | Path) -> Iterator[None]:
    """Turns every exception into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: download it") from error
    except Fault as fault:
        raise InputError(f"{path} {fault}") from fault
    except Exception as error:  # a damaged pickle or archive may raise any exception
        fault = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path} cannot be read ({fault:.120}): download it again") from error


def _open_zip(archive: zipfile.ZipFile, size: int) -> tuple[Any, dict[str, Read]]:
    """The value of <root>/data.pkl and the storages <root>/data/<key>."""
    entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
        raise Fault("is compressed, unlike PyTorch files")
    if sum(entry.file_size for entry in entries) > size:
        raise Fault("declares more data than it contains")
    pickles = [entry.filename for entry in entries if entry.filename.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise Fault("is a zip archive, but not a PyTorch one")
    root = pickles[0].removesuffix("data.pkl")
    if root + "byteorder" in archive.namelist():
        _check_little_endian(archive.read(root + "byteorder") == b"little")

    content = archive.read(pickles[0])
    content, storages = torch_pickle.load(io.BytesIO(content), len(content))
    names = {key: archive.getinfo(f"{root}data/{key}") for key in storages}  # KeyError for one that is missing
    return content, {key: functools.partial(archive.read, name) for key, name in names.items()}


def _open_legacy(file: BinaryIO, size: int) -> tuple[Any, dict[str, Read]]:
    """The value, and the storages, which follow it and fill the file."""
    file.seek(len(LEGACY))
    machine, _ = torch_pickle.load(file, size)
    _check_little_endian(machine["little_endian"])
    content, storages = torch_pickle.load(file, size)
    keys, _ = torch_pickle.load(file, size)

    if sorted(keys) != sorted(storages):
        raise Fault("lists storages that differ from those its tensors use")

    reads = {}
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != storage.count or storage.nbytes > size - file.tell():
            raise Fault(f"is truncated, or its storage {key!r:.40} is damaged")
        reads[key] = functools.partial(_read_at, file, file.tell(), storage.nbytes)
        file.seek(storage.nbytes, os.SEEK_CUR)
    if file.tell() != size:
        raise Fault("has trailing bytes after its last tensor")
    return content, reads


def _read_at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _open_pickle(file: BinaryIO, size: int) -> tuple[Any, dict[str, Read]]:
    """The value of a plain pickle, each of whose storages is a whole file of `_open_legacy`."""
    reads: dict[str, Read] = {}

    def embedded(data: bytes) -> Storage:
        if not isinstance(data, bytes) or not data.startswith(LEGACY):
            raise Fault("has a storage in an unknown format")
        storage, inner = _open_legacy(io.BytesIO(data), len(data))
        if not isinstance(storage, Storage):
            raise Fault("has a storage in an unknown format")
        key = str(len(reads))
        reads[key] = inner[storage.key]
        return storage._replace(key=key)

    content, _ = torch_pickle.load(file, size, embedded)
    if file.tell() != size:
        raise Fault("has trailing bytes after its pickle")
    return content, reads


def _check_little_endian(little: bool) -> None:
    if not little:
        raise Fault("is big-endian", "save it on a little-endian machine")


def _fits(tensor: Tensor) -> bool:
    storage, offset, shape, stride = tensor
    if len(shape) != len(stride) or min(offset, *shape, *stride, 0) < 0:
        return False
    if 0 in shape:
        return offset <= storage.count
    return offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) < storage.count
