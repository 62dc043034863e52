import numpy as np
import pytest

from configs import imagenet32
from eval.page import neighbours, runs
from sgflow_jax.data import fingerprint
from sgflow_jax.interfaces import InputError
from tests import tiny_records
from tests.rows import finished_run, row


def test_nearest_images_and_their_distances(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 3)
    # All pixels are equal, so the distance of two images is the difference of their grey levels.
    levels = np.array([0, 100, 104, 110, 200, 210, 250, 255], np.uint8)
    training = np.tile(levels[:, None, None, None], (1, 4, 4, 1))
    found = neighbours.nearest(training[[2, 7]] - np.uint8([[[[1]]], [[[0]]]]), training, 3)
    assert found.places.tolist() == [[2, 1, 3], [7, 6, 5]]
    np.testing.assert_array_equal(found.distances, [[1, 3, 7], [0, 5, 45]])
    assert neighbours.nearest(training[[1, 4]], training, 1, own=np.array([1, 4])).places.tolist() == [[2], [5]]
    # Distances to the nearest other image: 100, 4, 4, 6, 10, 10, 5, 5; their median is 5.5.
    assert neighbours.spread(training) == 5.5
    generated = np.array([0, 2, 11], np.uint8)[:, None, None, None] + training[[6, 4, 4]]
    # 250, 202 and 211 are 0, 2 and 1 levels from the nearest; the median is 1.
    assert neighbours.memorisation(generated, training, 5.5) == pytest.approx((1 / 5.5, 1.0))
    assert neighbours.memorisation(training, training, 5.5) == (0, 1)
    assert neighbours.memorisation(generated, training, 2.5).close == pytest.approx(2 / 3)


def test_nearest_images_agree_with_all_pairs():
    rng = np.random.default_rng(1)
    images, training = (rng.integers(0, 255, (n, 8, 8, 3)).astype(np.uint8) for n in (5, 2345))
    found = neighbours.nearest(images, training, 4)
    pairs = np.sqrt(((images[:, None].astype(float) - training[None]) ** 2).mean(axis=(2, 3, 4)))
    np.testing.assert_array_equal(found.places, np.argsort(pairs, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(pairs, axis=1)[:, :4])


def test_duplicated_training_images_are_rejected():
    training = np.random.default_rng(0).integers(0, 255, (10, 2, 2, 1)).astype(np.uint8).repeat(2, axis=0)
    with pytest.raises(InputError, match="duplicated"):
        neighbours.spread(training)


def test_many_training_images_are_subsampled(tmp_path, monkeypatch):
    tiny_records.write(tmp_path / "data", size=32, count=37)
    config = imagenet32.get_config()
    config.data.name, config.data.size = "imagenet32", 0
    config.data.data_dir = str(tmp_path / "data")
    made = tiny_records.images(32, 37)
    settings = dict(data="imagenet32", fingerprint=fingerprint.of_arrays(made), reference_count=37)
    run = finished_run(tmp_path / "run", [row(**settings)], config)
    found = neighbours.training(runs.read([run]))
    assert (found.held, found.total, found.mirrored, len(found.images)) == (37, 37, True, 74)
    assert not len(found.shares)
    monkeypatch.setattr(neighbours, "MOST_BYTES", 10 * 32 * 32 * 3 + 1)
    found = neighbours.training(runs.read([run]))
    assert (found.held, found.total, len(found.images)) == (10, 37, 20)
    np.testing.assert_array_equal(found.images[:10], made[::4])
    np.testing.assert_array_equal(found.images[10:], made[::4, :, ::-1])
