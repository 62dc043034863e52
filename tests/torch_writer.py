"""Writes files as PyTorch does, without PyTorch: the state that `torch.save` or `pickle.dump` would write."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage"}
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


class _Storage:
    def __init__(self, array):
        self.array = np.ascontiguousarray(array)


class Call:
    """Pickled as a call of MODULE.NAME, which need not exist."""

    def __init__(self, name: str, *args, state=None):
        self.name, self.args, self.state = name, args, state


class _Pickler(pickle.Pickler):
    def __init__(self, file, protocol, embed: bool):
        super().__init__(file, protocol)
        self.storages, self._embed = [], embed

    def persistent_id(self, item):
        if not isinstance(item, _Storage) or self._embed:
            return None
        self.storages.append(item.array)
        kind = _named(f"torch.{STORAGES[str(item.array.dtype)]}")
        return "storage", kind, str(len(self.storages) - 1), "cpu", item.array.size

    def reducer_override(self, item):
        if isinstance(item, np.ndarray):
            array = np.ascontiguousarray(item).reshape(item.shape)
            strides = tuple(step // array.itemsize for step in array.strides)
            args = (_Storage(array), 0, array.shape, strides, False, OrderedDict())
            return _named("torch._utils._rebuild_tensor_v2"), args
        if isinstance(item, _Storage):
            return _named("torch.storage._load_from_bytes"), (legacy(item),)
        if isinstance(item, Call):
            return (_named(item.name), item.args) + ((item.state,) if item.state is not None else ())
        return NotImplemented


_made: list[str] = []


def _named(whole: str):
    """A function that pickle saves by this name."""
    module, _, name = whole.rpartition(".")
    parts = module.split(".")
    for each in (".".join(parts[: i + 1]) for i in range(len(parts))):
        if each not in sys.modules:
            sys.modules[each] = types.ModuleType(each)
            _made.append(each)
    if not hasattr(sys.modules[module], name):
        function = types.FunctionType((lambda: None).__code__, {})
        function.__module__, function.__name__, function.__qualname__ = module, name, name
        setattr(sys.modules[module], name, function)
    return getattr(sys.modules[module], name)


def _pickled(content, protocol=2, embed=False):
    file = io.BytesIO()
    pickler, inside = _Pickler(file, protocol, embed), bool(_made)
    try:
        pickler.dump(content)
    finally:
        while _made and not inside:
            del sys.modules[_made.pop()]
    return file.getvalue(), pickler.storages


def archive(content) -> bytes:
    """The zip file of `torch.save`. Arrays in the content are tensors."""
    state, storages = _pickled(content)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("made/data.pkl", state)
        for number, array in enumerate(storages):
            made.writestr(f"made/data/{number}", array.tobytes())
    return file.getvalue()


def legacy(content) -> bytes:
    """The older format of `torch.save`."""
    state, storages = _pickled(content)
    data = b"".join(array.size.to_bytes(8, "little") + array.tobytes() for array in storages)
    return MAGIC + state + pickle.dumps([str(number) for number in range(len(storages))], 2) + data


def plain(content) -> bytes:
    """`pickle.dump`, as EDM writes its networks."""
    return _pickled(content, protocol=4, embed=True)[0]


def module(name: str, parameters=None, modules=None, **facts) -> Call:
    """A module of EDM in `plain`."""
    state = {**facts, "_parameters": parameters or {}, "_buffers": {}, "_modules": modules or {}}
    meta = {"type": "class", "version": 6, "module_src": "import os", "class_name": name, "state": state}
    return Call("torch_utils.persistence._reconstruct_persistent_obj", meta)


def as_modules(name: str, arrays: dict, **facts) -> Call:
    """A module of EDM with the arrays of a state dict in nested modules."""
    own, inner = {}, {}
    for key, array in arrays.items():
        first, dot, rest = key.partition(".")
        (inner.setdefault(first, {}) if dot else own)[rest or first] = array
    return module(name, own, {first: as_modules("Part", part) for first, part in inner.items()}, **facts)
