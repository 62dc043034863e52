"""Images of the user's own: what is left out, what is refused, and faults of the disk."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgflow_jax.data import decoding, own
from sgflow_jax.interfaces import InputError
from tests import own_images, tiny


@pytest.fixture
def damaged(tmp_path):
    folder = own_images.numbered(tmp_path / "odd", ["a/1.png", "b/1.png", "c/1.png"])
    whole = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[:-30])
    (folder / "b" / "text.png").write_text("this is no image")
    (folder / "c" / "gone.png").symlink_to("nowhere")
    own_images.write(folder / "c" / "bomb.png", 7)
    return folder


def test_damaged_images_are_named_and_left_out_on_request(damaged, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4 * 4)
    own_images.write(damaged / "c" / "bomb.png", 7, size=8)
    with pytest.raises(InputError) as error:
        own_images.read(damaged)
    assert str(error.value).startswith(f"a/cut.png in the folder {damaged} cannot be read (")
    assert str(error.value).endswith(
        "), and 3 more cannot: repair or remove what is damaged, or set --config.data.skip_damaged=true"
    )
    capsys.readouterr()
    monkeypatch.setattr(decoding, "_decode", None)  # nothing is decoded again
    source = own_images.read(damaged, skip_damaged=True)
    assert source.size == 3 and source.labels.tolist() == [0, 1, 2]
    assert capsys.readouterr().out.startswith("left out: a/cut.png (")


def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(mixed, tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        with pytest.raises(InputError, match="x.PNG cannot be read .Permission denied.: make it readable"):
            own_images.read(mixed, skip_damaged=True)
    assert own_images.read(mixed).size == 6


def test_a_class_of_damaged_images_is_no_class(damaged, capsys):
    (damaged / "b" / "1.png").unlink()
    source = own_images.read(damaged, skip_damaged=True)
    assert source.classes == ("a", "c") and source.labels.tolist() == [0, 1, 1]
    assert "left out: 'b', of which no image can be read" in capsys.readouterr().out
    shutil.rmtree(damaged / "c")
    own._opened.cache_clear()
    source = own_images.read(damaged, skip_damaged=True)
    assert source.classes == () and source.labels.tolist() == [0]


@pytest.mark.parametrize(
    "arrays, match",
    [
        ({"pictures": np.zeros((2, 4, 4), np.uint8)}, "it has no array called images: save one"),
        ({"images": np.zeros((2, 4, 4))}, r"images is float64 \(2, 4, 4\): save uint8"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, r"images is uint8 \(2, 4, 4, 2\): save uint8"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, r"images is uint8 \(0, 4, 4, 3\): save"),
        ({"labels": [0]}, r"labels is int64 \(1,\): save 2 integers from 0"),
        ({"labels": [0, -1]}, "save 2 integers from 0"),
        ({"labels": [0.0, 1.0]}, "labels is float64"),
        ({"labels": [0, 1], "classes": ["one"]}, "save 2 or more different names"),
        ({"labels": [0, 1], "classes": ["one", "one"]}, "save 2 or more different names"),
    ],
)
def test_arrays_of_another_form_are_refused(arrays, match, tmp_path):
    np.savez(tmp_path / "x.npz", **({"images": np.zeros((2, 4, 4), np.uint8)} if "labels" in arrays else {}), **arrays)
    with pytest.raises(InputError, match=match) as error:
        own_images.read(tmp_path / "x.npz")
    assert "\n" not in str(error.value)


def _folder_with(files):
    def make(place):
        place.mkdir()
        for name, content in files.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(content)

    return make


@pytest.mark.parametrize(
    "name, make, match",
    [
        ("x", _folder_with({}), "the folder .* has no images: put PNG, JPEG or WebP files there"),
        ("x", _folder_with({"a.txt": b""}), "the folder .* has no images: put PNG"),
        (
            "x",
            _folder_with({"a.png": b"x", "b/c.jpg": b""}),
            "has images both beside and inside its sub-directories .a.png and b/c.jpg.: move",
        ),
        (
            "x",
            _folder_with({"a.png": b"x", "c.jpg": b""}),
            "none of the 2 images of .* can be read .the first is a.png",
        ),
        ("x", lambda place: None, "config.data.dir is '.*x', which does not exist: give the place"),
        ("x.tar", lambda place: place.write_bytes(b"x"), "x.tar', a file of another kind: give a folder, .npz or .zip"),
        ("x.zip", lambda place: place.write_bytes(b"x"), "x.zip cannot be read .*: make it again"),
        ("x.npz", lambda place: place.write_bytes(b"x"), "x.npz cannot be read .*: make it with numpy.savez"),
    ],
)
def test_places_without_images_are_refused(name, make, match, tmp_path):
    make(tmp_path / name)
    for skip in (False, True):
        with pytest.raises(InputError, match=match) as error:
            own_images.read(tmp_path / name, skip_damaged=skip)
        assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.part")) and not list((tmp_path / "cache").rglob("facts.json"))


def test_a_full_disk_leaves_nothing(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(256, size=(400, 16, 16, 3), dtype=np.uint8))
    with (
        tiny.files_of_at_most(100_000),
        pytest.raises(InputError, match="File too large.: make room there, or set XDG"),
    ):
        own_images.read(tmp_path / "x.npz", size=16)
    assert [place.suffix for place in (tmp_path / "cache" / "sgflow_jax" / "images").iterdir()] == [".lock"]
    assert own_images.read(tmp_path / "x.npz", size=16).size == 400


def test_a_cache_that_cannot_be_written(mixed, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cannot be kept in .*Not a directory.: set XDG_CACHE_HOME to a directory"):
        own_images.read(mixed)


def test_damaged_prepared_files_are_reported(mixed, tmp_path):
    own_images.read(mixed)
    (place,) = (path.parent for path in (tmp_path / "cache").rglob("facts.json"))
    again = "the prepared images in .* are damaged .*: remove that directory and start again"
    for name in ("labels-train.npy", "train-00000.array_record", "facts.json"):
        whole = (place / name).read_bytes()
        (place / name).write_bytes(whole[: len(whole) // 2])
        own._opened.cache_clear()
        with pytest.raises(InputError, match=again):
            own_images.read(mixed)
        (place / name).write_bytes(whole)
    own._opened.cache_clear()
    assert own_images.read(mixed).size == 6
