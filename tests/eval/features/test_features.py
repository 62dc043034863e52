import functools

import numpy as np
import pytest

from eval import features
from eval.features import classifier
from eval.features.interface import Labelled
from sgflow_jax import data
from sgflow_jax.data import fingerprint
from sgflow_jax.interfaces import InputError


@pytest.fixture(scope="module")
def digits():
    source = data.make("digits")
    return Labelled("digits", source.images, source.labels)


def test_the_names_of_a_config_are_those_that_there_are():
    assert features.names() == tuple(features._FEATURES)


def test_pixels_are_scaled_to_one():
    images = np.array([0, 255, 51], np.uint8).reshape(3, 1, 1, 1)
    found = features.make("pixels")(images)
    np.testing.assert_allclose(found, [[-1], [1], [-0.6]], rtol=1e-6)
    assert found.dtype == np.float32
    points = np.array([[3.5, -2.0]], np.float32)
    np.testing.assert_array_equal(features.make("pixels")(points), points)


def test_classifier_learns_digits_and_is_kept(digits, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 150)  # of 600, and of a narrower network, as this test's are slow
    monkeypatch.setattr(classifier, "Classifier", functools.partial(classifier.Classifier, widths=(16, 32, 64)))
    first = features.make("classifier", labelled=digits)
    assert first.classes == 10 and first(digits.images[:3]).shape == (3, 64)
    labels = first.classify(first(digits.images))
    held_out = np.arange(len(labels)) % classifier.HELD_OUT == 0
    assert np.mean(labels[held_out] == digits.labels[held_out]) > 0.9

    monkeypatch.setattr(classifier, "_train", None)  # it would not be trained again
    again = features.make("classifier", labelled=digits)
    assert again.weights == first.weights
    np.testing.assert_array_equal(again(digits.images[:5]), first(digits.images[:5]))


def test_a_classifier_that_is_damaged_or_of_another_shape_is_trained_again(digits, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 1)
    labelled = digits._replace(labels=9 - digits.labels)
    sound = features.make("classifier", labelled=labelled)
    file = classifier._file(labelled)
    assert file != classifier._file(digits)
    for content in (b"", file.read_bytes()[:1000]):
        file.write_bytes(content)
        assert features.make("classifier", labelled=labelled).weights == sound.weights
    np.savez(file, **{"params/head/kernel": np.zeros((2, 2))})
    assert features.make("classifier", labelled=labelled).weights == sound.weights


def test_what_cannot_be_kept_serves_all_the_same(digits, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(classifier, "STEPS", 1)
    (tmp_path / "sgflow_jax").write_text("a file where the cache would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert features.make("classifier", labelled=digits)(digits.images[:2]).shape == (2, 64)
    assert "the classifier is not kept" in capfd.readouterr().err


def test_other_images_have_a_classifier_of_their_own(digits, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 1)
    one = features.make("classifier", labelled=digits._replace(images=255 - digits.images))
    other = features.make("classifier", labelled=digits._replace(images=digits.images // 2))
    assert one.weights != other.weights


def test_shifts_move_images_by_a_pixel_at_most():
    image = np.zeros((1, 5, 5, 1), np.uint8)
    image[0, 2, 2] = 1
    moved = classifier._shifted(np.random.default_rng(0), np.repeat(image, 200, axis=0))
    places = {tuple(np.argwhere(each[..., 0])[0]) for each in moved}
    assert places == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


def test_fingerprint_tells_type_shape_and_values():
    a = np.arange(6, dtype=np.uint8)
    others = [a.reshape(2, 3), a.astype(np.int16), a[::-1], a + 1]
    assert len({fingerprint.of_arrays(each) for each in [a, *others]}) == 5
    assert fingerprint.of_arrays(a[::-1][::-1]) == fingerprint.of_arrays(a)


def test_only_the_public_weights_are_the_fid():
    public = features.FID_SHA256[:12]
    assert features.distance_name("inception", public, "tf1") == "FID"
    assert features.distance_name("inception", public, "half_pixel") == "FID (half-pixel)"
    assert features.distance_name("inception", "0" * 12, "tf1") == f"FD-Inception (weights {'0' * 12})"
    assert features.distance_name("efficientnet_lite0", "579344248a93", "half_pixel") == "FD-EfficientNet"


def test_weights_that_are_not_the_networks(tmp_path):
    damaged = tmp_path / "inception.pth"
    damaged.write_bytes(b"half a file")
    with pytest.raises(
        InputError, match=f"inception.pth.*expected for the FID: {features.FID_SHA256}, found: [0-9a-f]"
    ):
        features.make("inception", weights=str(damaged))
    other = tmp_path / "other.npz"
    np.savez(other, **{"conv.weight": np.zeros((3, 3))})
    with pytest.raises(InputError, match="found: [0-9a-f]{64}"):
        features.make("inception", weights=str(other))
    with pytest.raises(InputError, match="missing"):
        features.make("inception", weights=str(tmp_path / "none.pth"))


def test_weights_in_the_cache_that_are_not_the_public_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "sgflow_jax" / "weights" / features.FID_URL.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"something else")
    with pytest.raises(InputError, match=f"{features.FID_SHA256}.*remove"):
        features.make("inception")


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"name": "vgg"}, "'vgg': use one of pixels, classifier, efficientnet_lite0, inception"),
        ({"name": "pixels", "weights": "x"}, "pixels has no weights"),
        ({"name": "efficientnet_lite0", "weights": "x"}, "efficientnet_lite0 has no weights"),
        ({"name": "classifier"}, "without labels"),
    ],
)
def test_refusals(arguments, match):
    with pytest.raises(InputError, match=match):
        features.make(**arguments)
