"""Crops, sizes and channels of single images."""

import numpy as np
import pytest
from PIL import Image

from sgflow_jax import data
from sgflow_jax.data import folder, pictures, prepared

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_whole_number_of_times_as_large_gives_the_rounded_mean_of_each_square(factor):
    images = RNG.integers(256, size=(3, 8, 8, 3), dtype=np.uint8)
    size = 8 // factor
    means = images.reshape(3, size, factor, size, factor, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(pictures.fitted(images, size, 3), np.floor(means + 0.5))


def test_other_sizes_are_those_of_pillow():
    image = Image.fromarray(RNG.integers(256, size=(10, 10, 3), dtype=np.uint8))
    np.testing.assert_array_equal(pictures.square(image, 4, 3), image.resize((4, 4), Image.Resampling.LANCZOS))


def test_the_central_square_is_kept():
    wide = np.zeros((2, 6, 1), np.uint8)
    wide[:, 2:4] = 200
    np.testing.assert_array_equal(pictures.fitted(wide[None], 2, 1), np.full((1, 2, 2, 1), 200))
    np.testing.assert_array_equal(pictures.fitted(wide.swapaxes(0, 1)[None], 1, 3), np.full((1, 1, 1, 3), 200))


def test_transparent_parts_become_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, :, 3], pixels[1, 0] = 255, (0, 0, 0, 0)
    pixels[1, 1] = (100, 0, 200, 128)
    found = pictures.square(Image.fromarray(pixels), 2, 3)
    assert found[0].tolist() == [[0, 0, 0]] * 2 and found[1, 0].tolist() == [255] * 3
    over_white = np.array([100, 0, 200]) * 128 / 255 + 127
    np.testing.assert_allclose(found[1, 1], over_white, atol=1)
    palette = Image.fromarray(np.array([[0, 1]], np.uint8).repeat(2, axis=0), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.info["transparency"] = 1
    assert pictures.square(palette, 2, 3)[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize(
    "image, grey",
    [
        (Image.new("L", (2, 2), 90), 90),
        (Image.new("LA", (2, 2), (90, 255)), 90),
        (Image.new("1", (2, 2), 1), 255),
        (Image.new("CMYK", (2, 2), (0, 0, 0, 255 - 90)), 90),
        (Image.fromarray(np.full((2, 2), 90 * 257, np.uint16)), 90),
        (Image.new("RGB", (2, 2), (90, 90, 90)), 90),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_every_mode_becomes_grey_or_rgb(image, grey):
    for channels in (1, 3):
        np.testing.assert_array_equal(pictures.square(image, 2, channels), np.full((2, 2, channels), grey))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_applied(orientation, tmp_path):
    """Orientation 6, say, means: turn by 90 degrees clockwise to view."""
    upright = RNG.integers(256, size=(4, 4, 3), dtype=np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(folder.decoded((tmp_path / "x.png").read_bytes()), upright)


def test_every_data_set_takes_a_size_and_channels():
    small = data.make("digits", size=4, channels=3)
    assert data.shape(data.Request("digits", size=4, channels=3)) == (4, 4, 3) == small.images.shape[1:]
    whole = data.make("digits").images.astype(int)
    sums = whole.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4))
    np.testing.assert_array_equal(small.images, ((sums + 2) // 4)[..., None].repeat(3, axis=-1))
    assert data.title(data.Request("digits", size=4)) == "digits-4" and data.title(data.Request("digits")) == "digits"
    assert small.identity()["fingerprint"] != data.make("digits").identity()["fingerprint"]


@pytest.mark.parametrize("size", [16, 8])
def test_cifar10_at_half_and_quarter_size(size, monkeypatch):
    images, factor = RNG.integers(256, size=(5, 32, 32, 3), dtype=np.uint8), 32 // size
    split = prepared.Split(images, "", "")  # only its length is asked for
    monkeypatch.setattr(split, "examples", lambda indices: [{"image": images[i], "label": i} for i in indices])
    monkeypatch.setattr(prepared, "open_split", lambda *_: split)
    small = data.make("cifar10", size=size)
    means = images.reshape(-1, size, factor, size, factor, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(small.images, np.floor(means + 0.5))
    assert small.labels.tolist() == [0, 1, 2, 3, 4] and small.classes == data.make("cifar10").classes
