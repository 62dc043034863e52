import numpy as np
import pytest

from eval import real
from eval.features import interface
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


@pytest.mark.parametrize("name", ["digits", "checkerboard"])
def test_the_fingerprint_is_that_of_one_array(name, monkeypatch):
    source = data.make(name)
    found = real.fingerprint(source)
    assert found == interface.fingerprint(source.read(np.arange(source.size)))
    monkeypatch.setattr(real, "CHUNK", 700)
    assert real.fingerprint(source) == found


def test_the_fingerprint_of_digits_is_that_of_committed_results():
    assert real.fingerprint(data.make("digits")) == "7c6e988e3921"


def test_a_large_set_is_told_by_some_of_it(monkeypatch):
    monkeypatch.setattr(real, "WHOLE", 9)
    monkeypatch.setattr(real, "WITNESSES", 4)
    source, read = _images(10), []
    monkeypatch.setattr(data.Images, "read", lambda self, indices: read.extend(indices) or self.images[indices])
    found = real.fingerprint(source)
    assert read == [0, 3, 6, 9]
    longer = data.Images(source.images[[0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 9]], np.zeros(11, np.int32), False)
    witnesses = _images(10)
    witnesses.images[3] += 1
    assert len({found, real.fingerprint(longer), real.fingerprint(witnesses)}) == 3
    source.images[4] += 1
    assert real.fingerprint(source) == found
