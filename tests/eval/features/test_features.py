import functools
import importlib
from pathlib import Path

import jax
import numpy as np
import pytest

from eval import features
from eval.features import classifier, download, inception
from eval.features.interface import Labelled
from sgflow_jax import data
from sgflow_jax.data import fingerprint
from sgflow_jax.interfaces import InputError


@pytest.fixture(scope="module")
def digits():
    source = data.make("digits")
    return Labelled("digits", source.images, source.labels, len(source.classes))


@pytest.mark.parametrize("name", features.names())
def test_every_name_has_a_module_with_a_maker(name):
    assert callable(importlib.import_module(f"eval.features.{name}").make)


def test_pixels_are_scaled_to_plus_minus_one_and_points_unchanged():
    images = np.array([0, 255, 51], np.uint8).reshape(3, 1, 1, 1)
    found = features.make("pixels")(images)
    np.testing.assert_allclose(found, [[-1], [1], [-0.6]], rtol=1e-6)
    assert found.dtype == np.float32
    points = np.array([[3.5, -2.0]], np.float32)
    np.testing.assert_array_equal(features.make("pixels")(points), points)


def test_the_classifier_learns_digits_and_is_cached(digits, monkeypatch):
    # A narrower network with fewer, smaller and longer steps.
    _narrow(monkeypatch, "QUICK", widths=(8, 16, 32), steps=200)
    monkeypatch.setattr(classifier, "BATCH", 64)
    first = features.make("classifier", labelled=digits)
    assert first.classes == 10 and first(digits.images[:3]).shape == (3, 64)
    labels = first.classify(first(digits.images))
    held_out = np.arange(len(labels)) % classifier.HELD_OUT == 0
    assert np.mean(labels[held_out] == digits.labels[held_out]) > 0.9

    monkeypatch.setattr(classifier, "_train", None)  # fails if it is trained again
    again = features.make("classifier", labelled=digits)
    assert again.weights == first.weights
    np.testing.assert_array_equal(again(digits.images[:5]), first(digits.images[:5]))


@pytest.mark.parametrize("recipe, widths", [("QUICK", (8, 8)), ("THOROUGH", ((16,), (32,)))])
def test_the_classifier_tells_coloured_images_of_any_number_of_classes_apart(recipe, widths, monkeypatch):
    """Three classes, the colours of a square."""
    _narrow(monkeypatch, recipe, widths=widths, steps=60)
    monkeypatch.setattr(classifier, "BATCH", 16)
    monkeypatch.setattr(classifier, "_THOROUGH_COUNT", 100 if recipe == "THOROUGH" else 1000)
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=200).astype(np.int32)
    images = rng.integers(0, 60, (200, 8, 8, 3)).astype(np.uint8)
    images[np.arange(200), 2:6, 2:6, labels] += 150
    made = features.make("classifier", labelled=Labelled("squares", images, labels, 3))
    assert made.classes == 3 and np.mean(made.classify(made(images)) == labels) > 0.95


def _narrow(monkeypatch, name, widths, steps):
    """Replaces a recipe by one with a narrower network and fewer, longer steps."""
    recipe = getattr(classifier, name)
    narrow = recipe._replace(network=functools.partial(recipe.network, widths=widths), steps=steps)
    monkeypatch.setattr(classifier, name, narrow)
    monkeypatch.setattr(classifier, "LEARNING_RATE", 1e-2)


@pytest.mark.parametrize(
    "shape, thorough",
    [((10_000, 8, 8, 3), True), ((9_999, 8, 8, 3), False), ((10_000, 8, 8, 1), False), ((10_000, 32, 32, 3), False)],
)
def test_many_small_colour_images_get_the_thorough_classifier(shape, thorough):
    images = np.broadcast_to(np.uint8(0), shape)
    recipe = classifier.recipe_of(Labelled("any", images, np.zeros(len(images), np.int32), 2))
    assert recipe is (classifier.THOROUGH if thorough else classifier.QUICK)


def _untrained(model, labelled):
    return jax.tree.map(lambda a: a + 1, classifier._init(model, labelled.images.shape[1:]))


def test_a_damaged_or_misshapen_classifier_is_trained_again(digits, monkeypatch):
    monkeypatch.setattr(classifier, "_train", _untrained)
    labelled = digits._replace(labels=9 - digits.labels)
    sound = features.make("classifier", labelled=labelled)
    file = classifier._file(labelled)
    for content in (b"", file.read_bytes()[:1000]):
        file.write_bytes(content)
        assert features.make("classifier", labelled=labelled).weights == sound.weights
    np.savez(file, **{"params/head/kernel": np.zeros((2, 2))})
    assert features.make("classifier", labelled=labelled).weights == sound.weights


def test_a_classifier_that_cannot_be_cached_is_used_anyway(digits, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(classifier, "_train", _untrained)
    (tmp_path / "sgflow_jax").write_text("a file where the cache would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert features.make("classifier", labelled=digits)(digits.images[:2]).shape == (2, 64)
    assert "the classifier was not cached" in capfd.readouterr().err


def test_other_images_and_labels_get_another_classifier(digits):
    others = [digits, digits._replace(images=255 - digits.images), digits._replace(labels=9 - digits.labels)]
    assert len({classifier._file(labelled) for labelled in others}) == 3


def test_shifts_move_images_by_at_most_one_pixel():
    image = np.zeros((1, 5, 5, 1), np.uint8)
    image[0, 2, 2] = 1
    moved = classifier._shifted(np.random.default_rng(0), np.repeat(image, 200, axis=0))
    places = {tuple(np.argwhere(each[..., 0])[0]) for each in moved}
    assert places == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


def test_the_fingerprint_depends_on_dtype_shape_and_values():
    a = np.arange(6, dtype=np.uint8)
    others = [a.reshape(2, 3), a.astype(np.int16), a[::-1], a + 1]
    assert len({fingerprint.of_arrays(each) for each in [a, *others]}) == 5
    assert fingerprint.of_arrays(a[::-1][::-1]) == fingerprint.of_arrays(a)


def test_only_public_weights_are_called_fid():
    public = inception.SHA256[:12]
    assert features.distance_name("inception", public, "tf1") == "FID"
    assert features.distance_name("inception", public, "half_pixel") == "FID (half-pixel)"
    assert features.distance_name("inception", "0" * 12, "tf1") == f"FD-Inception (weights {'0' * 12})"
    assert features.distance_name("efficientnet_lite0", "579344248a93", "half_pixel") == "FD-EfficientNet"


def test_weights_of_another_network_are_rejected(tmp_path):
    damaged = tmp_path / "inception.pth"
    damaged.write_bytes(b"half a file")
    with pytest.raises(InputError, match=f"inception.pth.*expected for the FID: {inception.SHA256}, found: [0-9a-f]"):
        features.make("inception", weights=str(damaged))
    other = tmp_path / "other.npz"
    np.savez(other, **{"conv.weight": np.zeros((3, 3))})
    with pytest.raises(InputError, match="found: [0-9a-f]{64}"):
        features.make("inception", weights=str(other))
    with pytest.raises(InputError, match="missing"):
        features.make("inception", weights=str(tmp_path / "none.pth"))


def test_wrong_weights_in_the_cache_are_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(download, "_download", lambda url, file, _: Path(file).write_bytes(b"something else"))
    file = tmp_path / "sgflow_jax" / "weights" / inception.URL.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"something else")
    with pytest.raises(InputError, match=f"{inception.SHA256}.*give --inception_weights=PATH"):
        features.make("inception")


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"name": "vgg"}, "'vgg': use one of pixels, classifier, efficientnet_lite0, inception"),
        ({"name": "pixels", "weights": "x"}, "pixels has no weights"),
        ({"name": "efficientnet_lite0", "weights": "x"}, "efficientnet_lite0 has no weights"),
        ({"name": "classifier"}, "needs labelled images"),
    ],
)
def test_bad_requests_are_rejected(arguments, match):
    with pytest.raises(InputError, match=match):
        features.make(**arguments)
