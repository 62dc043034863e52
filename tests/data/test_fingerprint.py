import numpy as np
import pytest

from sgflow_jax import data
from sgflow_jax.data import fingerprint


def _images(count):
    pixels = np.random.default_rng(0).integers(256, size=(count, 2, 2, 1), dtype=np.uint8)
    return data.Images(pixels, np.zeros(count, np.int32), flip=True)


@pytest.mark.parametrize("name", ["digits", "checkerboard"])
def test_the_fingerprint_equals_that_of_one_array(name, monkeypatch):
    source = data.make(name)
    found = fingerprint.of_examples(source)
    assert found == fingerprint.of_arrays(source.read(np.arange(source.size)))
    monkeypatch.setattr(fingerprint, "CHUNK", 700)
    assert fingerprint.of_examples(source) == found


def test_the_fingerprint_of_digits_matches_committed_results():
    assert fingerprint.of_examples(data.make("digits")) == "7c6e988e3921"


def test_a_large_set_is_identified_by_a_subset(monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE", 9)
    monkeypatch.setattr(fingerprint, "WITNESSES", 4)
    source, read = _images(10), []
    monkeypatch.setattr(data.Images, "read", lambda self, indices: read.extend(indices) or self.images[indices])
    found = fingerprint.of_examples(source)
    assert read == [0, 3, 6, 9]
    longer = data.Images(source.images[[0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 9]], np.zeros(11, np.int32), False)
    witnesses = _images(10)
    witnesses.images[3] += 1
    assert len({found, fingerprint.of_examples(longer), fingerprint.of_examples(witnesses)}) == 3
    source.images[4] += 1
    assert fingerprint.of_examples(source) == found
