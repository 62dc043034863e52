"""Reads PyTorch weight files without PyTorch and without executing code from their pickles.

Supports the zip archives of torch >= 1.6 and the older sequence of pickles and raw storages.
"""

import io
import math
import os
import pickle  # noqa: TID251 - _Unpickler makes tensors and nothing else, as its tests prove
import pickletools
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sgflow_jax.interfaces import InputError

STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)  # magic number, protocol number
ZIP = b"PK\x03\x04"
MAX_SHARING = 8  # bytes of all tensors / bytes of the file, which exceeds 1 where tensors share a storage


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict in file order: C-contiguous, with the saved shape and dtype.

    InputError if the file is missing or damaged, is not a state dict, or requests other Python objects.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(len(LEGACY))
            if head.startswith(ZIP):
                state, storages = _read_zip(file, size)
            elif head == LEGACY:
                state, storages = _read_legacy(file, size)
            else:
                raise _Fault("is not a PyTorch weight file")
        return _tensors(state, storages, size)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: download it") from error
    except _Fault as fault:
        raise InputError(f"{path} {fault}") from fault
    except Exception as error:  # a damaged pickle or archive may raise any exception
        fault = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path} cannot be read ({fault:.120}): download it again") from error


class _Fault(Exception):
    """An error message to be prefixed with the path of the file."""

    def __init__(self, fault: str, remedy: str = "download it again"):
        super().__init__(f"{fault}: {remedy}")


class _Dict(dict):
    """Replaces OrderedDict and ignores its attributes (`_metadata`, the module versions)."""

    def __setstate__(self, state):
        pass


class _Storage(NamedTuple):
    """A one-dimensional array of `count` elements, stored under `key`."""

    dtype: str
    key: str
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Creates a _Tensor for each tensor and collects their `storages`."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str):
        match f"{module}.{name}":
            case "collections.OrderedDict":
                return _Dict
            # A new function each time, because a pickle may set attributes on it.
            case "torch._utils._rebuild_tensor_v2":
                return lambda storage, offset, shape, stride, *_: _Tensor(storage, offset, shape, stride)
            case "torch._utils._rebuild_parameter":
                return lambda tensor, *_: tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise _Fault(f"requests {f'{module}.{name}'!r:.80}", "save only the state dict")

    def persistent_load(self, pid) -> _Storage:
        match pid:
            case ("storage", str(dtype), str(key), str(), int(count), *rest):
                storage = _Storage(dtype, key, count)
                sound = dtype in STORAGES.values() and count >= 0 and rest in ([], [None])
                if sound and self.storages.setdefault(key, storage) == storage:
                    return storage
        raise _Fault("has a storage in an unknown format")

    def load_checked(self, file: BinaryIO):
        """Checks the instructions, then loads: a large memo index would allocate a table of that size."""
        start = file.tell()
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > number:
                raise _Fault("has a damaged pickle")
        file.seek(start)
        return self.load()


def _read_zip(file: BinaryIO, size: int) -> tuple[object, dict[str, bytes]]:
    """The state from <root>/data.pkl and the storages from <root>/data/<key>."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
            raise _Fault("is compressed, unlike PyTorch files")
        if sum(entry.file_size for entry in entries) > size:
            raise _Fault("declares more data than it contains")
        pickles = [entry.filename for entry in entries if entry.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise _Fault("is a zip archive, but not a PyTorch one")
        root = pickles[0].removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist():
            _check_little_endian(archive.read(root + "byteorder") == b"little")

        stream = io.BytesIO(archive.read(pickles[0]))
        unpickler = _Unpickler(stream)
        state = unpickler.load_checked(stream)
        return state, {key: archive.read(f"{root}data/{key}") for key in unpickler.storages}


def _read_legacy(file: BinaryIO, size: int) -> tuple[object, dict[str, bytes]]:
    """The state and the storages, which follow the protocol number and fill the file."""
    machine = _Unpickler(file).load_checked(file)
    _check_little_endian(machine["little_endian"])
    unpickler = _Unpickler(file)
    state = unpickler.load_checked(file)
    keys = _Unpickler(file).load_checked(file)

    if sorted(keys) != sorted(unpickler.storages):
        raise _Fault("lists storages that differ from those its tensors use")

    storages = {}
    for key in keys:
        storage = unpickler.storages[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != storage.count or storage.nbytes > size - file.tell():
            raise _Fault(f"is truncated, or its storage {key!r:.40} is damaged")
        storages[key] = file.read(storage.nbytes)
    if file.tell() != size:
        raise _Fault("has trailing bytes after its last tensor")
    return state, storages


def _check_little_endian(little: bool) -> None:
    if not little:
        raise _Fault("is big-endian", "save it on a little-endian machine")


def _tensors(state: object, storages: dict[str, bytes], size: int) -> dict[str, np.ndarray]:
    """Copies of the views. Allocates nothing before every view is known to fit its storage."""
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise _Fault("is not a state dict", "save only the state dict")
    for key, tensor in state.items():
        if not isinstance(tensor, _Tensor):
            raise _Fault(f"contains {key!r:.80}, which is not a tensor", "save only the state dict")
        if not _fits(tensor, storages):
            raise _Fault(f"contains the tensor {key!r:.80}, which extends beyond its storage")
    total = sum(math.prod(tensor.shape) * np.dtype(tensor.storage.dtype).itemsize for tensor in state.values())
    if total > MAX_SHARING * size:
        raise _Fault("shares its storages among too many tensors", "save the tensors as contiguous copies")

    arrays = {}
    for key, (storage, offset, shape, stride) in state.items():
        flat = np.frombuffer(storages[storage.key], storage.dtype)[offset:]
        strides = [step * flat.itemsize for step in stride]
        # A copy in C order. Unlike np.ascontiguousarray, this keeps the shape () of scalars.
        arrays[key] = np.array(np.lib.stride_tricks.as_strided(flat, shape, strides), order="C")
    return arrays


def _fits(tensor: _Tensor, storages: dict[str, bytes]) -> bool:
    storage, offset, shape, stride = tensor
    if len(storages[storage.key]) != storage.nbytes or len(shape) != len(stride) or min(offset, *shape, *stride, 0) < 0:
        return False
    if 0 in shape:
        return offset <= storage.count
    return offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) < storage.count
