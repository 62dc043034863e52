"""Images of the user's own: what is read, what is left out, and what is refused."""

import itertools
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgflow_jax import data
from sgflow_jax.data import decoding, fingerprint, own, prepared, preparing
from sgflow_jax.interfaces import InputError
from tests import tiny, tiny_records

ALL = slice(None)


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache, and no data set remembered from before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own._opened.cache_clear()


def _pixels(number, size=4, channels=3):
    return np.random.default_rng(number).integers(256, size=(size, size, channels), dtype=np.uint8)


def _write(file: Path, number: int, size: int = 4, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(number, size)).save(file, **options)


def _read(place, **options):
    return data.make("images", dir=str(place), **{"size": 4, **options})


def _numbered(folder: Path, paths) -> Path:
    """A folder with image i, `_pixels(i)`, at the i-th path."""
    for number, path in enumerate(paths):
        _write(folder / path, number)
    return folder


MIXED = ["cats, big/2.png", "cats, big/10.png", "Vögel/ä b.png", "Vögel/deeper/x.PNG", "a c/z.png"]


@pytest.fixture
def mixed(tmp_path):
    """Three classes among everything that a folder of a user may have."""
    folder = _numbered(tmp_path / "mixed", MIXED)
    (folder / "empty").mkdir()
    (folder / "a c" / "notes.txt").write_text("a note")
    (folder / "read me").write_text("a note")
    (folder / "a c" / ".hidden.png").write_text("x")
    (folder / ".git").mkdir()
    _write(folder / ".git" / "x.png", 9)
    (folder / "a c" / "loop").symlink_to(folder)
    _write(tmp_path / "elsewhere" / "linked.png", 8)
    (folder / "a c" / "outside").symlink_to(tmp_path / "elsewhere")
    return folder


def test_a_folder_of_classes(mixed, capsys):
    source = _read(mixed)
    assert (
        source.classes == ("Vögel", "a c", "cats, big") == data.classes(data.Request("images", dir=str(mixed), size=4))
    )
    # In the order of the paths: Vögel/deeper/x.PNG, Vögel/ä b.png, a c/outside/linked.png, a c/z.png, ...
    expected = np.stack([_pixels(number) for number in (3, 2, 8, 4, 1, 0)])
    np.testing.assert_array_equal(source.read(np.arange(6)), expected)
    assert source.labels.dtype == np.int32 and source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"preparing 6 images of the folder {mixed}, kept in ") and said[1].startswith(
        "prepared 6 "
    )
    assert said[2:] == [
        "left out: 'empty', without images",
        "left out: files that are no PNG, JPEG or WebP by their names, 2",
        "left out: 'a c/loop', a link to a directory above it",
    ]
    batch = source.batch(0, 0, 6, ALL)
    order = [int(np.argmax((expected == image).all(axis=(1, 2, 3)))) for image in batch["x"]]
    assert set(source.labels[order]) == {0, 1, 2} and (source.labels[order] == batch["label"]).all()


def test_the_identity_is_that_of_the_images(mixed):
    source = _read(mixed)
    identity = source.identity()
    images = source.read(np.arange(6))
    assert identity == {
        "name": "images",
        "split": "train",
        "examples": 6,
        "fingerprint": fingerprint.of_arrays(images),
        "classes": [["Vögel", 2], ["a c", 2], ["cats, big", 2]],
        "labels": fingerprint.of_arrays(source.labels),
    }
    _write(mixed / "a c" / "z.png", 77)
    own._opened.cache_clear()
    assert _read(mixed).identity()["fingerprint"] != identity["fingerprint"]


def test_every_format_and_mode_of_a_file(tmp_path):
    folder = tmp_path / "images"
    rgb = Image.fromarray(_pixels(0, 8))
    for name, mode in itertools.product(("x.png", "x.webp"), ("RGB", "L", "RGBA")):
        (folder / mode).mkdir(parents=True, exist_ok=True)
        rgb.convert(mode).save(folder / mode / name, **({"lossless": True} if name.endswith("webp") else {}))
    for name, mode in (("p.png", "P"), ("la.png", "LA"), ("1.png", "1"), ("cmyk.jpg", "CMYK"), ("l.JPEG", "L")):
        rgb.convert(mode).save(folder / "L" / name, format=None if "png" in name else "jpeg")
    frames = [Image.fromarray(_pixels(number, 8)) for number in (0, 1)]
    frames[0].save(folder / "RGB" / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    source = _read(folder, size=8, channels=1)
    assert source.images.shape == (12, 8, 8, 1) and [count for _, count in source.identity()["classes"]] == [7, 3, 2]
    source = _read(folder, size=8)
    assert source.images.shape == (12, 8, 8, 3)
    colour = source.images[source.labels == 1]
    assert len(colour) == 3 and (colour == _pixels(0, 8)).all()  # of the moving picture, the first frame


@pytest.fixture
def damaged(tmp_path):
    folder = _numbered(tmp_path / "odd", ["a/1.png", "b/1.png", "c/1.png"])
    whole = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "cut.png").write_bytes(whole[:-30])
    (folder / "b" / "text.png").write_text("this is no image")
    (folder / "c" / "gone.png").symlink_to("nowhere")
    _write(folder / "c" / "bomb.png", 7)
    return folder


def test_damaged_images_are_named_and_left_out_on_request(damaged, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4 * 4)
    _write(damaged / "c" / "bomb.png", 7, size=8)
    with pytest.raises(InputError) as error:
        _read(damaged)
    assert str(error.value).startswith(f"a/cut.png in the folder {damaged} cannot be read (")
    assert str(error.value).endswith(
        "), and 3 more cannot: repair or remove what is damaged, or set --config.data.skip_damaged=true"
    )
    capsys.readouterr()
    monkeypatch.setattr(decoding, "_decode", None)  # nothing is decoded again
    source = _read(damaged, skip_damaged=True)
    assert source.size == 3 and source.labels.tolist() == [0, 1, 2]
    assert capsys.readouterr().out.startswith("left out: a/cut.png (")


def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(mixed, tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        with pytest.raises(InputError, match="x.PNG cannot be read .Permission denied.: make it readable"):
            _read(mixed, skip_damaged=True)
    assert _read(mixed).size == 6


def test_a_class_of_damaged_images_is_no_class(damaged, capsys):
    (damaged / "b" / "1.png").unlink()
    source = _read(damaged, skip_damaged=True)
    assert source.classes == ("a", "c") and source.labels.tolist() == [0, 1, 1]
    assert "left out: 'b', of which no image can be read" in capsys.readouterr().out
    shutil.rmtree(damaged / "c")
    own._opened.cache_clear()
    source = _read(damaged, skip_damaged=True)
    assert source.classes == () and source.labels.tolist() == [0]


def test_images_without_classes(tmp_path):
    for folder in (
        _numbered(tmp_path / "flat", ["b.png", "a.png"]),
        _numbered(tmp_path / "one", ["x/b.png", "x/a.png"]),
    ):
        source = _read(folder)
        np.testing.assert_array_equal(source.images, [_pixels(1), _pixels(0)])
        assert source.classes == () and not source.labels.any() and "classes" not in source.identity()


@pytest.mark.parametrize("top", ["", "photos/"])
def test_an_archive_equals_its_folder(mixed, tmp_path, top):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in MIXED:
            archive.write(mixed / path, top + path)
        archive.writestr(f"{top}empty/", "")
        archive.writestr(f"{top}a c/notes.txt", "a note")
        archive.writestr("__MACOSX/a c/z.png", "x")
        archive.writestr(f"{top}a c/.hidden.png", "x")
    (mixed / "a c" / "outside").unlink()
    from_folder, from_archive = _read(mixed), _read(tmp_path / "x.zip")
    assert from_archive.identity() == from_folder.identity() and from_archive.size == 5


def test_a_file_of_arrays(tmp_path):
    images, file = np.stack([_pixels(number) for number in range(4)]), tmp_path / "x.npz"
    np.savez(file, images=images, labels=np.array([2, 0, 2, 0], np.uint8))
    source = _read(file)
    np.testing.assert_array_equal(source.images, images)
    assert source.classes == ("0", "1", "2") and source.labels.tolist() == [2, 0, 2, 0]
    np.savez(file, images=images[..., 0], labels=[0, 1, 0, 1], classes=["no", "yes"])
    own._opened.cache_clear()
    source = _read(file, channels=1)
    np.testing.assert_array_equal(source.images, images[..., :1])
    assert source.classes == ("no", "yes")
    np.savez(file, images=images)
    own._opened.cache_clear()
    assert _read(file).classes == ()


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
        _read(tmp_path / "x.npz")
    assert "\n" not in str(error.value)


def test_a_share_is_held_out_by_content(tmp_path):
    names = [f"{'ab'[number % 2]}/{number:03d}.png" for number in range(60)]
    folder = _numbered(tmp_path / "many", names)
    for number in range(60):
        shutil.copy(folder / names[number], folder / f"a/again{number:03d}.png")
    request = data.Request("images", dir=str(folder), size=4, test_share=0.3)
    assert data.splits(request) == ("train", "test") and data.splits(request._replace(test_share=0.0)) == ("train",)
    train, test = (data.read(request._replace(split=split)) for split in ("train", "test"))
    whole = _read(folder)
    assert train.size + test.size == whole.size == 120 and 20 <= test.size <= 54
    contents = [{image.tobytes() for image in source.images} for source in (train, test)]
    assert not contents[0] & contents[1] and len(contents[0] | contents[1]) == 60
    assert train.classes == test.classes == ("a", "b")
    held = {image.tobytes() for image in whole.images if image.tobytes() in contents[1]}
    assert held == contents[1]
    with pytest.raises(InputError, match="data.test_share is 1e-09, which leaves no image for the split test"):
        data.read(request._replace(test_share=1e-9, split="test"))


def test_images_too_large_for_memory_are_read_by_grain(mixed, monkeypatch):
    kept = _read(mixed, flip=True)
    monkeypatch.setattr(own, "IN_MEMORY", 6 * 4 * 4 * 3 - 1)
    monkeypatch.setattr(preparing, "SHARD_BYTES", 2 * 4 * 4 * 3)  # three files
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    own._opened.cache_clear()
    source = _read(mixed)
    assert isinstance(kept, data.Images) and isinstance(source, data.Records)
    assert (
        source.identity() == kept.identity()
        and len(list(own._opened(data.Request("images", dir=str(mixed), size=4)).place.glob("train-*"))) == 3
    )
    with_batches = source.batches(0, 0, 4, np.arange(4))
    images = source.read(np.arange(6))
    np.testing.assert_array_equal(images, kept.images)
    for batch in itertools.islice(with_batches, 3):
        for image, label in zip(batch["x"], batch["label"], strict=True):
            assert label in source.labels[(images == image).all(axis=(1, 2, 3))]
    with_batches.close()


class _Examples(list):
    """A split as returned by TFDS: examples by index."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def test_the_stand_in_for_cifar10_exported_to_files(shared, tmp_path, monkeypatch):
    """At size 16 the same batches, to the bit, as cifar10 with data.size=16, given the same order. Of 300 images."""
    stored = prepared.open_split("cifar10", "cifar10", "test", str(shared / "data" / "tfds"))
    examples = stored.examples(range(300))
    monkeypatch.setattr(prepared, "open_split", lambda *_: prepared.Split(_Examples(examples), "cifar10", ""))
    whole, small = data.make("cifar10"), data.make("cifar10", size=16, flip=True)
    for number in range(300):
        folder = tmp_path / "png" / whole.classes[whole.labels[number]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(whole.images[number]).save(folder / f"{number:05d}.png")
    source = _read(tmp_path / "png", size=16, flip=True)
    order = np.argsort(small.labels, kind="stable")
    assert source.classes == small.classes
    expected = data.Images(small.images[order], small.labels[order], flip=True)
    for step in (0, 7):
        for name, values in expected.batch(3, step, 64, ALL).items():
            np.testing.assert_array_equal(source.batch(3, step, 64, ALL)[name], values)


def test_any_data_set_of_tfds(tmp_path):
    splits = {"train": tiny_records.images(64, 11), "validation": tiny_records.images(64, 5, "validation")}
    tiny_records.write_images(tmp_path, 64, splits, "my_pictures", ("cat", "dog", "newt"))
    request = data.Request("tfds:my_pictures/64x64", str(tmp_path), size=32)
    assert data.classes(request) == ("cat", "dog", "newt") and data.splits(request) == ("train", "test")
    assert data.title(request) == "tfds-my_pictures-64x64-32" and data.shape(request) == (32, 32, 3)
    for split, name in (("train", "train"), ("test", "validation")):
        source = data.read(request._replace(split=split))
        halved = splits[name].reshape(-1, 32, 2, 32, 2, 3).astype(int).sum(axis=(2, 4))
        np.testing.assert_array_equal(source.images, (halved + 2) // 4)
        assert source.labels.tolist() == [number % 3 for number in range(len(source.labels))]
    with pytest.raises(InputError, match="tfds:mnist is not prepared in .*make data DATASET=mnist.*data_dir"):
        data.read(request._replace(name="tfds:mnist"))


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
            _read(tmp_path / name, skip_damaged=skip)
        assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.part")) and not list((tmp_path / "cache").rglob("facts.json"))


def test_a_full_disk_leaves_nothing(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(256, size=(400, 16, 16, 3), dtype=np.uint8))
    with (
        tiny.files_of_at_most(100_000),
        pytest.raises(InputError, match="File too large.: make room there, or set XDG"),
    ):
        _read(tmp_path / "x.npz", size=16)
    assert [place.suffix for place in (tmp_path / "cache" / "sgflow_jax" / "images").iterdir()] == [".lock"]
    assert _read(tmp_path / "x.npz", size=16).size == 400


def test_a_cache_that_cannot_be_written(mixed, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cannot be kept in .*Not a directory.: set XDG_CACHE_HOME to a directory"):
        _read(mixed)


def test_damaged_prepared_files_are_reported(mixed, tmp_path):
    _read(mixed)
    (place,) = (path.parent for path in (tmp_path / "cache").rglob("facts.json"))
    again = "the prepared images in .* are damaged .*: remove that directory and start again"
    for name in ("labels-train.npy", "train-00000.array_record", "facts.json"):
        whole = (place / name).read_bytes()
        (place / name).write_bytes(whole[: len(whole) // 2])
        own._opened.cache_clear()
        with pytest.raises(InputError, match=again):
            _read(mixed)
        (place / name).write_bytes(whole)
    own._opened.cache_clear()
    assert _read(mixed).size == 6
