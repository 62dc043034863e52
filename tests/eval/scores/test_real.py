import numpy as np

from eval.scores import real
from sgflow_jax import data


def _images(count):
    pixels = np.random.default_rng(0).integers(256, size=(count, 2, 2, 1), dtype=np.uint8)
    return data.Images(pixels, np.zeros(count, np.int32), flip=True)


def test_chunks_are_the_examples_in_order(monkeypatch):
    monkeypatch.setattr(real, "CHUNK", 4)
    source = _images(10)
    chosen = real.Examples(source, np.array([9, 0, 3, 3, 7]))
    assert [len(chunk) for chunk in chosen.chunks()] == [4, 1] and len(chosen) == 5
    np.testing.assert_array_equal(np.concatenate(list(chosen.chunks())), source.images[[9, 0, 3, 3, 7]])
    np.testing.assert_array_equal(chosen[1:3].read(), source.images[[0, 3]])
    assert real.spread(source, 4).indices.tolist() == [0, 3, 6, 9]
    assert real.spread(source, 11).indices.tolist() == list(range(10))


def test_the_order_of_statistics_is_that_of_every_earlier_version():
    assert real.shuffled(_images(8)).indices.tolist() == [2, 4, 3, 6, 5, 0, 1, 7]
