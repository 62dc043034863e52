"""Images of the user's own: what is read of a folder, an archive, a file of arrays and a data set of TFDS."""

import itertools
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from sgflow_jax import data
from sgflow_jax.data import fingerprint, own, prepared, preparing
from sgflow_jax.interfaces import InputError
from tests import own_images, tiny_records

ALL = slice(None)


def test_a_folder_of_classes(mixed, capsys):
    source = own_images.read(mixed)
    assert (
        source.classes == ("Vögel", "a c", "cats, big") == data.classes(data.Request("images", dir=str(mixed), size=4))
    )
    # In the order of the paths: Vögel/deeper/x.PNG, Vögel/ä b.png, a c/outside/linked.png, a c/z.png, ...
    expected = np.stack([own_images.pixels(number) for number in (3, 2, 8, 4, 1, 0)])
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
    source = own_images.read(mixed)
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
    own_images.write(mixed / "a c" / "z.png", 77)
    own._opened.cache_clear()
    assert own_images.read(mixed).identity()["fingerprint"] != identity["fingerprint"]


def test_every_format_and_mode_of_a_file(tmp_path):
    folder = tmp_path / "images"
    rgb = Image.fromarray(own_images.pixels(0, 8))
    for name, mode in itertools.product(("x.png", "x.webp"), ("RGB", "L", "RGBA")):
        (folder / mode).mkdir(parents=True, exist_ok=True)
        rgb.convert(mode).save(folder / mode / name, **({"lossless": True} if name.endswith("webp") else {}))
    for name, mode in (("p.png", "P"), ("la.png", "LA"), ("1.png", "1"), ("cmyk.jpg", "CMYK"), ("l.JPEG", "L")):
        rgb.convert(mode).save(folder / "L" / name, format=None if "png" in name else "jpeg")
    frames = [Image.fromarray(own_images.pixels(number, 8)) for number in (0, 1)]
    frames[0].save(folder / "RGB" / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    source = own_images.read(folder, size=8, channels=1)
    assert source.images.shape == (12, 8, 8, 1) and [count for _, count in source.identity()["classes"]] == [7, 3, 2]
    source = own_images.read(folder, size=8)
    assert source.images.shape == (12, 8, 8, 3)
    colour = source.images[source.labels == 1]
    assert len(colour) == 3 and (colour == own_images.pixels(0, 8)).all()  # of the moving picture, the first frame


def test_images_without_classes(tmp_path):
    for folder in (
        own_images.numbered(tmp_path / "flat", ["b.png", "a.png"]),
        own_images.numbered(tmp_path / "one", ["x/b.png", "x/a.png"]),
    ):
        source = own_images.read(folder)
        np.testing.assert_array_equal(source.images, [own_images.pixels(1), own_images.pixels(0)])
        assert source.classes == () and not source.labels.any() and "classes" not in source.identity()


@pytest.mark.parametrize("top", ["", "photos/"])
def test_an_archive_equals_its_folder(mixed, tmp_path, top):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in own_images.MIXED:
            archive.write(mixed / path, top + path)
        archive.writestr(f"{top}empty/", "")
        archive.writestr(f"{top}a c/notes.txt", "a note")
        archive.writestr("__MACOSX/a c/z.png", "x")
        archive.writestr(f"{top}a c/.hidden.png", "x")
    (mixed / "a c" / "outside").unlink()
    from_folder, from_archive = own_images.read(mixed), own_images.read(tmp_path / "x.zip")
    assert from_archive.identity() == from_folder.identity() and from_archive.size == 5


def test_a_file_of_arrays(tmp_path):
    images, file = np.stack([own_images.pixels(number) for number in range(4)]), tmp_path / "x.npz"
    np.savez(file, images=images, labels=np.array([2, 0, 2, 0], np.uint8))
    source = own_images.read(file)
    np.testing.assert_array_equal(source.images, images)
    assert source.classes == ("0", "1", "2") and source.labels.tolist() == [2, 0, 2, 0]
    np.savez(file, images=images[..., 0], labels=[0, 1, 0, 1], classes=["no", "yes"])
    own._opened.cache_clear()
    source = own_images.read(file, channels=1)
    np.testing.assert_array_equal(source.images, images[..., :1])
    assert source.classes == ("no", "yes")
    np.savez(file, images=images)
    own._opened.cache_clear()
    assert own_images.read(file).classes == ()


def test_a_share_is_held_out_by_content(tmp_path):
    names = [f"{'ab'[number % 2]}/{number:03d}.png" for number in range(60)]
    folder = own_images.numbered(tmp_path / "many", names)
    for number in range(60):
        shutil.copy(folder / names[number], folder / f"a/again{number:03d}.png")
    request = data.Request("images", dir=str(folder), size=4, test_share=0.3)
    assert data.splits(request) == ("train", "test") and data.splits(request._replace(test_share=0.0)) == ("train",)
    train, test = (data.read(request._replace(split=split)) for split in ("train", "test"))
    whole = own_images.read(folder)
    assert train.size + test.size == whole.size == 120 and 20 <= test.size <= 54
    contents = [{image.tobytes() for image in source.images} for source in (train, test)]
    assert not contents[0] & contents[1] and len(contents[0] | contents[1]) == 60
    assert train.classes == test.classes == ("a", "b")
    held = {image.tobytes() for image in whole.images if image.tobytes() in contents[1]}
    assert held == contents[1]
    with pytest.raises(InputError, match="data.test_share is 1e-09, which leaves no image for the split test"):
        data.read(request._replace(test_share=1e-9, split="test"))


def test_images_too_large_for_memory_are_read_by_grain(mixed, monkeypatch):
    kept = own_images.read(mixed, flip=True)
    monkeypatch.setattr(own, "IN_MEMORY", 6 * 4 * 4 * 3 - 1)
    monkeypatch.setattr(preparing, "SHARD_BYTES", 2 * 4 * 4 * 3)  # three files
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    own._opened.cache_clear()
    source = own_images.read(mixed)
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
    source = own_images.read(tmp_path / "png", size=16, flip=True)
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
