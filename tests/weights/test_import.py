"""--mode=import: the run it writes, and files that are damaged, foreign or hostile."""

import hashlib
import io
import json
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import quickstart
from sgflow_jax import beginning, build
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import song_names
from sgflow_jax.run import access, integrity, layout
from sgflow_jax.weights import import_run
from tests import tiny, torch_writer
from tests.song_rule import smallest


def _config():
    config = quickstart.get_config()  # digits
    config.data.batch_size = 8
    config.optim.more_ema_decays = (0.9,)
    return config


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(the file, the run) of MeanFlow's layout."""
    folder = tmp_path_factory.mktemp("imported")
    arrays = {**smallest("net."), **smallest("net_ema1.")}
    (folder / "a.pth").write_bytes(torch_writer.archive({"model": arrays, "epoch": 7}))
    import_run.import_weights(str(folder / "a.pth"), str(folder / "run"), _config())
    return folder / "a.pth", str(folder / "run"), arrays


def test_the_run_of_a_file(imported):
    file, workdir, arrays = imported
    assert sorted(path.name for path in Path(workdir).parent.iterdir()) == ["a.pth", "run"]
    for parameters, prefix in (("ema", "net_ema1."), ("ema_0.9", "net_ema1."), ("raw", "net.")):
        opened = access.open(workdir, parameters=parameters)
        own = {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}
        jax.tree.map(np.testing.assert_array_equal, opened.params, song_names.parameters(own, interleaved=False))
    config = opened.config
    assert (opened.step, config.objective.name, config.data.name) == (7, "mean_flow", "digits")
    assert (config.model.name, config.model.channels, config.train.keep_every) == ("song_unet", 4, 500)
    (event,) = map(json.loads, layout.events_file(workdir).read_text().splitlines())
    assert event["event"] == "import" and event["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert event["layout"] == {"networks": ["net", "net_ema1"], "average": "model/net_ema1.", "raw": "model/net."}


def test_the_run_can_be_continued_and_begun_with(imported):
    """All of the checkpoint has the arrays that the trainer reads, and another run of this network takes them."""
    _, workdir, _ = imported
    config = access.open(workdir).config
    step_fn = build.train_step(config)
    like = build.state_like(config, step_fn, build.mesh(config))
    saved = access.previous(workdir, config)
    _, arrays = integrity._read(layout.checkpoints(workdir), saved.step)

    def shapes(tree):
        found = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True): leaf.shape for path, leaf in found}

    assert shapes(arrays["state"]) == shapes(like) and arrays["state"]["step"] == 7
    config.train.init_from = workdir
    assert beginning.find(config, like) == beginning.Beginning(workdir, 7, fork=False)


def test_a_directory_with_files_is_left_alone(imported, tmp_path):
    file, workdir, _ = imported
    with pytest.raises(InputError, match="has files already .checkpoints"):
        import_run.import_weights(str(file), workdir, _config())
    with pytest.raises(InputError, match="8 x 8 pixels with 1 channel.*give --config"):
        import_run.import_weights(str(file), str(tmp_path / "run"))
    config = _config()
    config.data.size = 16
    with pytest.raises(InputError, match=r"config.data makes \(16, 16, 1\): set config.data.size=8"):
        import_run.import_weights(str(file), str(tmp_path / "run"), config)
    assert not list(tmp_path.iterdir())


# Damaged, foreign and hostile files.

ARRAYS = {"enc.8x8_conv.weight": np.ones((4, 1, 3, 3), np.float32), "map_layer0.weight": np.ones((16, 16), np.float32)}
ARCHIVE, LEGACY = torch_writer.archive(ARRAYS), torch_writer.legacy(ARRAYS)
PLAIN, TENSORS = (
    torch_writer.plain({"ema": torch_writer.as_modules("EDMPrecond", ARRAYS)}),
    safetensors.numpy.save(ARRAYS),
)
MARKER = "a command was run"


class _Command:
    def __reduce__(self):
        return os.mkdir, (MARKER,)


COMMAND = pickle.dumps(_Command(), 2)


def _flipped(content: bytes, place: int) -> bytes:
    damaged = bytearray(content)
    damaged[place] ^= 0x55
    return bytes(damaged)


def _zipped(compression=zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in entries.items():
            made.writestr(f"made/{name.replace('_', '/')}", content)
    return file.getvalue()


def _header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


def _entry(dtype="F32", shape=(4,), offsets=(0, 16)) -> bytes:
    return _header(json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()) + bytes(16)


def _own(facts, **arrays) -> bytes:
    text = facts if isinstance(facts, str) else json.dumps(facts)
    return safetensors.numpy.save(arrays or ARRAYS, {import_run.KEY: text})


OWN = {"format": 1, "step": 1, "data": None, "parameters": "ema", "config": tiny.mixture().to_dict()}
LAUGHS = b"\x80\x02}q\x00X\x01\x00\x00\x00aK\x01s" + b"".join(
    b"}q%c(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cu" % (i + 1, i, i) for i in range(40)
)
BAD = {
    "empty": (b"", "not a PyTorch weight file"),
    "a page": (b"<html>404</html>", "not a PyTorch weight file"),
    "half an archive": (ARCHIVE[: len(ARCHIVE) // 2], "cannot be read"),
    "an archive without its end": (ARCHIVE[:-1], "cannot be read"),
    "a flipped bit in a tensor": (_flipped(ARCHIVE, ARCHIVE.index(np.ones(4, np.float32).tobytes())), "Bad CRC-32"),
    "a flipped bit in the pickle": (_flipped(ARCHIVE, ARCHIVE.index(b"_rebuild") + 2), "Bad CRC-32"),
    "a flipped bit in a legacy pickle": (_flipped(LEGACY, LEGACY.index(b"_rebuild") + 2), "requests"),
    "a legacy file cut short": (LEGACY[:-1], "truncated"),
    "a legacy file with more": (LEGACY + b"0", "trailing bytes"),
    "a pickle cut short": (PLAIN[:-9], "cannot be read"),
    "a pickle with more": (PLAIN + b"0", "trailing bytes"),
    "an .npz": (_zipped(array=np.ones(3).tobytes()), "not a PyTorch one"),
    "a compressed archive": (_zipped(zipfile.ZIP_DEFLATED, data_pkl=bytes(10**6)), "is compressed"),
    "a command": (COMMAND, "requests 'posix.mkdir'"),
    "a command in an archive": (_zipped(**{"data.pkl": COMMAND}), "requests 'posix.mkdir'"),
    "a command in a legacy file": (torch_writer.MAGIC + COMMAND, "requests 'posix.mkdir'"),
    "a command inside a tensor": (
        torch_writer.plain({"w": torch_writer.Call("torch.storage._load_from_bytes", torch_writer.MAGIC + COMMAND)}),
        "requests 'posix.mkdir'",
    ),
    "files inside files": (
        torch_writer.plain({"w": torch_writer.Call("torch.storage._load_from_bytes", PLAIN)}),
        "storage in an unknown format",
    ),
    "eval": (torch_writer.plain(torch_writer.Call("builtins.eval", "1")), "requests 'builtins.eval'"),
    "import by name": (torch_writer.plain(torch_writer.Call("importlib.import_module", "os")), "requests 'importlib"),
    "attributes": (torch_writer.plain(torch_writer.Call("builtins.getattr", 1, "real")), "requests 'builtins.getattr'"),
    "a model of scikit-learn": (torch_writer.plain(torch_writer.Call("sklearn.svm.SVC")), "requests 'sklearn.svm.SVC'"),
    "an inert object that is called": (
        b"\x80\x02cargparse\nNamespace\n)R)R.",
        "cannot be read",
    ),
    "huge bytes": (b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"abc.", "cannot be read"),
    "a huge frame": (b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"N.", "cannot be read"),
    "a huge memo": (b"\x80\x02Nr\xff\xff\xff\x7f.", "damaged pickle"),
    "many entries from few": (LAUGHS + b".", "too many entries"),
    "a dictionary in itself": (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "cannot be read"),
    "deep nesting": (b"\x80\x02" + b"(" * 5000 + b"l" * 5000 + b".", "cannot be read|no network"),
    "another network": (torch_writer.archive({"conv1.weight": np.ones((4, 3, 3, 3), np.float32)}), "no network"),
    "safetensors, empty": (b"", "header"),
    "safetensors, no tensors": (_header(b"{}"), "no network"),
    "safetensors, huge header": (_header(b"{}", 2**62), "it declares a header"),
    "safetensors, long header": (_header(b"{" + b" " * 2**25), "it declares a header"),
    "safetensors, damaged header": (_header(TENSORS[8:40]) + TENSORS[40:], "cannot be read"),
    "safetensors, header of a list": (_header(b"[]"), "cannot be read"),
    "safetensors, cut short": (TENSORS[:-1], "cannot be read"),
    "safetensors, huge shape": (_entry(shape=(2**62, 4)), "cannot be read"),
    "safetensors, beyond the end": (_entry(offsets=(0, 2**40)), "cannot be read"),
    "safetensors, unknown type": (_entry(dtype="F99"), "cannot be read"),
    "own, no JSON": (_own("{"), "damaged configuration"),
    "own, another format": (_own({**OWN, "format": 2}), "its format is 2"),
    "own, no configuration": (_own({**OWN, "config": 3}), "is damaged"),
    "own, unknown objective": (_own({**OWN, "config": {**OWN["config"], "objective": {"name": "new"}}}), "new"),
    "own, classes": (_own({**OWN, "data": {"classes": [3]}}), "damaged configuration"),
    "own, step": (_own({**OWN, "step": -1}), "damaged configuration"),
    "own, endless network": (
        _own({**OWN, "config": {**OWN["config"], "model": {**OWN["config"]["model"], "depth": 10**9}}}),
        "more layers than arrays",
    ),
    "own, other arrays": (_own(OWN), "array '"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, tmp_path, monkeypatch):
    """One line, nothing run, nothing written, and little memory."""
    monkeypatch.chdir(tmp_path)
    content, match = BAD[name]
    tensors = name.startswith(("safetensors", "own"))
    file = tmp_path / ("bad.safetensors" if tensors else "bad.pth")
    file.write_bytes(content)
    config = None if name.startswith("own") else _config()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=match) as caught:
            import_run.import_weights(str(file), str(tmp_path / "run"), config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(caught.value)
    assert line.startswith(str(file)) and "\n" not in line and len(line) < len(str(file)) + 300
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert peak < 2**28, f"{peak:,} bytes"
