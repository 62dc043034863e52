"""Reads the pickles in PyTorch files. Makes tensors and plain values; calls nothing that a pickle names."""

import io
import itertools
import pickle  # noqa: TID251 - _Unpickler makes tensors and nothing else, as its tests prove
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

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
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"  # a module of EDM, with its source text
# Besides tensors, what released files contain. Each becomes an `Inert`.
INERT = frozenset(
    f"{module}.{name}"
    for module, names in {
        "_codecs": "encode",
        "argparse": "Namespace",
        "builtins": "set frozenset",
        "collections": "defaultdict deque",
        "dnnlib.util": "EasyDict",
        "numpy": "dtype ndarray",
        "numpy.core.multiarray": "scalar _reconstruct",
        "numpy._core.multiarray": "scalar _reconstruct",
        "pathlib": "Path PosixPath WindowsPath",
        "torch": "Size device float16 bfloat16 float32 float64 int32 int64",
        "torch.nn.modules.container": "ModuleDict ModuleList",
        PERSISTENT.rpartition(".")[0]: PERSISTENT.rpartition(".")[2],
    }.items()
    for name in names.split()
)
MAX_ENTRIES = 50_000  # of the content of a file: a pickle may refer to one dictionary from many places


class Fault(Exception):
    """An error message to be prefixed with the path of the file."""

    def __init__(self, fault: str, remedy: str = "download it again"):
        super().__init__(f"{fault}: {remedy}")


class Storage(NamedTuple):
    """A one-dimensional array of `count` elements, stored under `key`."""

    dtype: str
    key: str
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


class Tensor(NamedTuple):
    """A view of a storage; offset and strides are in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """Stands for an object of a class in INERT: the arguments and the state it would be made from."""

    name = ""
    args: tuple = ()
    state: Any = None

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass


class _Dict(dict):
    """Replaces OrderedDict and ignores its attributes (`_metadata`, the module versions)."""

    def __setstate__(self, state):
        pass


class _Unpickler(pickle.Unpickler):
    """Creates a Tensor for each tensor and collects their `storages`.

    embedded: called with the bytes of a whole PyTorch file inside the pickle that holds one storage.
    """

    def __init__(self, file: BinaryIO, embedded: Callable[[bytes], Storage] | None):
        super().__init__(file)
        self.storages: dict[str, Storage] = {}
        self._embedded = embedded

    def find_class(self, module: str, name: str):
        match whole := f"{module}.{name}":
            case "collections.OrderedDict":
                return _Dict
            # A new function or class each time, because a pickle may set attributes on it.
            case "torch._utils._rebuild_tensor_v2":
                return lambda storage, offset, shape, stride, *_: Tensor(storage, offset, shape, stride)
            case "torch._utils._rebuild_parameter":
                return lambda tensor, *_: tensor
            case "torch.storage._load_from_bytes" if self._embedded:
                return lambda data: self._embedded(data)
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if whole in INERT:
            return type("Inert", (Inert,), {"name": whole})
        raise Fault(f"requests {whole!r:.80}", "save only the state dict")

    def persistent_load(self, pid) -> Storage:
        match pid:
            case ("storage", str(dtype), str(key), str(), int(count), *rest):
                storage = Storage(dtype, key, count)
                sound = dtype in STORAGES.values() and count >= 0 and rest in ([], [None])
                if sound and self.storages.setdefault(key, storage) == storage:
                    return storage
        raise Fault("has a storage in an unknown format")


class _Bounded:
    """A file on disk that is never asked for more than it has left: Python allocates what is asked for, then reads."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.readline, self.tell, self.seek = file.readline, file.tell, file.seek

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))


def load(
    file: BinaryIO, size: int, embedded: Callable[[bytes], Storage] | None = None
) -> tuple[Any, dict[str, Storage]]:
    """The value of the pickle at the file's position, and the storages it refers to by their keys. The file is then
    behind the pickle.

    size: of the whole file. embedded: see `_Unpickler`; None: such bytes are a fault.
    Fault, or any other exception, for a damaged pickle or one that requests other objects.
    """
    stream, start = file if isinstance(file, io.BytesIO) else _Bounded(file, size), file.tell()
    # Checked before it is loaded: a large memo index would allocate a table of that size.
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > number:
            raise Fault("has a damaged pickle")
    file.seek(start)
    unpickler = _Unpickler(stream, embedded)
    return unpickler.load(), unpickler.storages


def flattened(content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, and the plain values (numbers, text), of the content of a file by their places.

    Levels of dictionaries are joined by "/", modules of EDM's pickles by ".", as PyTorch joins them in a state dict:
    {"model": {"enc.conv": tensor}} has model/enc.conv. The name of the class of such a module is its class_name.
    """
    tensors, values = {}, {}
    count = itertools.count()

    def visit(place: str, item: Any, separator: str) -> None:
        """separator: before the names of what is in the item."""
        if next(count) > MAX_ENTRIES:
            raise Fault("has too many entries")
        if isinstance(item, Tensor):
            tensors[place] = item
        elif isinstance(item, bool | int | float | str):
            values[place] = item
        elif isinstance(item, Mapping):
            for key, value in item.items():
                visit(f"{place}{separator * bool(place)}{key}", value, "/")
        elif isinstance(item, Inert):
            state = item.state
            if item.name == PERSISTENT and isinstance(state := _only(item.args), dict):
                visit(f"{place}{separator}class_name", state.get("class_name"), "")
                state = state.get("state")
            for name, value in _attributes(state):
                visit(f"{place}{separator * bool(place)}{name}", value, ".")

    visit("", content, "/")
    return tensors, values


def _only(args: tuple) -> Any:
    return args[0] if len(args) == 1 else None


def _attributes(state: Any) -> Iterator[tuple[str, Any]]:
    """What the state of a PyTorch module holds: parameters, buffers, modules, and its plain values."""
    if isinstance(state, dict):
        for name, value in state.items():
            if isinstance(value, bool | int | float | str):
                yield name, value
            elif name in ("_parameters", "_buffers", "_modules") and isinstance(value, dict):
                yield from value.items()
