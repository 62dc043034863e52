import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import data
from sgflow_jax.data import fingerprint, prepared
from sgflow_jax.interfaces import InputError

ALL = slice(None)


def _all(source):
    return source.read(np.arange(source.size))


def _numbered(n, flip=False):
    """Image i has the value i in its left pixel and i + 100 in its right one."""
    images = np.stack([np.arange(n), np.arange(n) + 100], axis=1).astype(np.uint8)
    return data.Images(images.reshape(n, 1, 2, 1), np.arange(n, dtype=np.int32), flip)


def test_an_epoch_is_a_permutation_even_if_it_ends_inside_a_batch():
    source, size, n = _numbered(10), 4, 10
    seen = np.concatenate([source.batch(0, step, size, ALL)["label"] for step in range(5)])
    for epoch in (seen[:n], seen[n:]):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    assert np.any(seen[:n] != seen[n:])


@pytest.mark.parametrize("source", [_numbered(10, flip=True), data.make("mixture1d"), data.make("checkerboard")])
def test_a_batch_is_a_function_of_seed_and_step(source):
    first, again = (source.batch(3, 7, 8, ALL) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert np.any(source.batch(4, 7, 8, ALL)["x"] != first["x"])
    assert np.any(source.batch(3, 8, 8, ALL)["x"] != first["x"])


@pytest.mark.parametrize("source", [_numbered(10, flip=True), data.make("eight_gaussians")])
def test_processes_read_parts_of_one_batch(source):
    whole = source.batch(0, 3, 8, ALL)
    for shares in (np.split(np.arange(8), 2), [np.arange(8)[p::3] for p in range(3)]):
        parts = [source.batch(0, 3, 8, rows) for rows in shares]
        for name in whole:
            found = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(found, whole[name][np.concatenate(shares)])


@pytest.mark.parametrize("source", [_numbered(10, flip=True), data.make("eight_gaussians")])
def test_batches_start_at_any_step(source):
    rows = np.array([1, 2, 6])
    for step, batch in zip(range(4, 9), source.batches(0, 4, 8, rows), strict=False):
        for name, values in source.batch(0, step, 8, ALL).items():
            np.testing.assert_array_equal(batch[name], values[rows])


def test_read_keeps_the_order_and_never_mirrors():
    source = _numbered(10, flip=True)
    assert source.size == 10 and source.read(np.array([7, 0, 7]))[:, 0, 0, 0].tolist() == [7, 0, 7]
    points = data.make("checkerboard")
    np.testing.assert_array_equal(points.read(np.array([5, 3])), _all(points)[[5, 3]])


def test_the_identity_in_a_checkpoint():
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    known = {
        "name": "digits",
        "split": "train",
        "examples": 1797,
        "fingerprint": "7c6e988e3921",
        "classes": [[str(number), count] for number, count in enumerate(counts)],
        "labels": fingerprint.of_arrays(data.make("digits").labels),
    }
    assert data.make("digits").identity() == known
    other = data.make("digits")
    other.images[5, 0, 0, 0] += 1
    assert other.identity() != known
    assert data.make("mixture1d", split="test").identity() == {"name": "mixture1d", "split": "test"}


class _Prepared(list):
    """A split as returned by TFDS: examples by index."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def _cifar10(monkeypatch, **changed):
    """CIFAR-10 of three images; image 1 has the changed values."""
    examples = [{"image": np.zeros((32, 32, 3), np.uint8), "label": np.int64(number)} for number in range(3)]
    examples[1] = {name: value for name, value in (examples[1] | changed).items() if value is not None}
    split = prepared.Split(_Prepared(examples), "cifar10 in /data", "make data")
    monkeypatch.setattr(prepared, "open_split", lambda *_: split)
    return data.make("cifar10")


def test_prepared_data_is_checked_when_opened(monkeypatch):
    assert _cifar10(monkeypatch).labels.tolist() == [0, 1, 2]
    cases = [
        ({"image": np.zeros((64, 64, 3), np.uint8)}, r"image 1 is uint8 \(64, 64, 3\), not uint8 \(32, 32, 3\)"),
        ({"image": np.zeros((32, 32, 3))}, r"image 1 is float64 \(32, 32, 3\), not uint8"),
        ({"image": None}, "image 1 is object"),
        ({"label": np.int64(39)}, "the label of image 1 is 39, not one of 0 to 9"),
        ({"label": np.int64(-1)}, "the label of image 1 is -1, not one of 0 to 9"),
        ({"label": np.array([1, 2])}, "the label of image 1 is .1 2., not one of"),
        ({"label": None}, "the label of image 1 is None, not one of"),
    ]
    for changed, match in cases:
        with pytest.raises(InputError, match=f"^cifar10 in /data is damaged .{match}.*: remove it and run `make data`"):
            _cifar10(monkeypatch, **changed)


def test_batches_equal_those_of_earlier_versions():
    batch = data.make("digits", flip=True).batch(3, 28, 128, ALL)
    assert fingerprint.of_arrays(batch["x"], batch["label"]) == "a21f9b8fc2ea"


def test_flips_mirror_half_of_the_images():
    batch = _numbered(100, flip=True).batch(0, 0, 100, ALL)
    left = batch["x"][:, 0, 0, 0].astype(int)
    mirrored = left == batch["label"] + 100
    assert np.all(mirrored | (left == batch["label"]))
    assert 30 < mirrored.sum() < 70
    plain = _numbered(100).batch(0, 0, 100, ALL)
    np.testing.assert_array_equal(plain["label"], batch["label"])
    np.testing.assert_array_equal(plain["x"][:, 0, 0, 0], plain["label"])


def test_scaling_round_trip():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    scaled = data.to_float(jnp.asarray(images))
    np.testing.assert_allclose([scaled.min(), scaled.max()], [-1, 1])
    np.testing.assert_array_equal(data.to_examples(scaled), images)
    np.testing.assert_array_equal(data.to_examples(jnp.full((1, 1, 1, 1), 7.0)), 255)
    points = jnp.array([[3.0, -2.0]])
    np.testing.assert_array_equal(data.to_examples(data.to_float(points)), points)


def test_digits():
    source = data.make("digits")
    assert source.images.shape == (1797, *data.shape(data.Request("digits"))) and source.images.dtype == np.uint8
    assert source.images.min() == 0 and source.images.max() == 255
    assert set(source.labels) == set(range(len(data.classes(data.Request("digits")))))


def test_points_follow_their_distributions():
    gaussians = _all(data.make("eight_gaussians"))
    np.testing.assert_allclose(np.linalg.norm(gaussians, axis=1).mean(), 2, atol=0.01)
    angle = np.arctan2(gaussians[:, 1], gaussians[:, 0]) / (np.pi / 4)
    assert np.all(np.abs(angle - np.round(angle)) < 0.5) and len(np.unique(np.round(angle) % 8)) == 8

    board = _all(data.make("checkerboard"))
    column, row = np.floor(board + 2).astype(int).T
    assert set((column + row) % 2) == {0} and board.min() >= -2 and board.max() <= 2

    line = _all(data.make("mixture1d"))[:, 0]
    law = data.oracle("mixture1d")
    assert abs(line.mean() - np.dot(law.weights, law.means)) < 0.04
    assert data.oracle("digits") is None


def test_cifar10_stand_in(shared):
    source = data.make("cifar10", str(shared / "data" / "tfds"), flip=True)
    assert source.images.shape == (50_000, *data.shape(data.Request("cifar10"))) and source.images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(source.labels), np.full(10, 5_000))
    assert source.batch(0, 390, 128, ALL)["x"].shape == (128, 32, 32, 3)


@pytest.mark.parametrize(
    "fields, match",
    [
        ({"name": "mnist"}, "'mnist'.*digits, cifar10.*tfds:NAME"),
        ({"name": "mixture1d", "flip": True}, "flip"),
        ({"name": "digits", "split": "test"}, "no split 'test': use train"),
        ({"name": "checkerboard", "split": "valid"}, "no split 'valid': use train or test"),
        ({"name": "mixture1d", "size": 8}, "mixture1d consists of points: set data.size and data.channels to 0"),
        ({"name": "digits", "channels": 2}, "config.data.channels is 2: use 1 .grey., 3 .RGB., or 0"),
        ({"name": "digits", "test_share": 0.1}, "test_share are for the data set images, not digits"),
        ({"name": "images", "dir": "x"}, "config.data.size is 0: images may have images of any size, so give one"),
        ({"name": "images", "size": 8}, "config.data.dir is '': give the folder, .npz or .zip of the images"),
    ],
)
def test_bad_requests_are_rejected(fields, match):
    with pytest.raises(InputError, match=match):
        data.make(**fields)


def test_splits_are_different_draws():
    train, test = (_all(data.make("mixture1d", split=split)) for split in data.splits(data.Request("mixture1d")))
    assert np.mean(train == test) < 0.01
    assert data.splits(data.Request("digits")) == ("train",)


def test_cifar10_not_prepared(tmp_path):
    with pytest.raises(InputError, match="not prepared.*make data"):
        data.make("cifar10", str(tmp_path))
    assert not list(tmp_path.iterdir())
