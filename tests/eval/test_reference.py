import dataclasses

import numpy as np
import pytest

from configs import quickstart
from eval import features, reference
from eval.features.interface import Features
from eval.scores import real, results, selfcheck
from sgflow_jax import data
from sgflow_jax.interfaces import InputError
from tests import tiny

PIXELS = features.make("pixels")


def _counted(calls):
    return Features("pixels", lambda x: calls.append(len(x)) or PIXELS(x))


def _of_file(file, config, extract):
    return reference.of_file(str(file), extract, data.shape(config.data), config.data)


def test_statistics_of_the_data_are_correct_and_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    target = reference.of_data(quickstart.get_config().data, _counted(calls))
    assert target.identity.reference_count == 1797 and target.identity.split == "train"
    assert not calls  # computed only on demand
    found = target.statistics()
    assert sum(calls) == 1797

    flat = PIXELS(data.make("digits").images).astype(np.float64)
    np.testing.assert_allclose(found.gaussian.mean, flat.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.gaussian.cov, np.cov(flat.T), atol=1e-6)
    assert sorted(map(tuple, found.features)) == sorted(map(tuple, flat)) != list(map(tuple, flat))

    again = target.statistics()
    assert sum(calls) == 1797
    np.testing.assert_array_equal(again.gaussian.cov, found.gaussian.cov)
    name = reference.cached(target.identity).name
    assert name.startswith(f"{results.VERSION}-digits-train-") and name.endswith("-1797-pixels.npz")


def test_wrong_or_damaged_cached_statistics_are_recomputed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    target = reference.of_data(tiny.digits().data, _counted(calls))
    sound = target.statistics()
    file = reference.cached(target.identity)
    for bad in (b"", file.read_bytes()[:3000]):
        file.write_bytes(bad)
        np.testing.assert_array_equal(target.statistics().gaussian.cov, sound.gaussian.cov)
    reference.save(file, dataclasses.replace(target.identity, fingerprint="0" * 12), sound)
    target.statistics()
    assert sum(calls) == 4 * 1797


def test_the_cache_name_contains_the_whole_identity():
    identity = reference.of_data(tiny.digits().data, PIXELS).identity
    names = [field.name for field in dataclasses.fields(identity)]
    changed = {name: dataclasses.replace(identity, **{name: f"other {name}"}) for name in names}
    assert len({reference.cached(each) for each in [identity, *changed.values()]}) == len(changed) + 1


def test_a_reference_file_must_match_the_run(tmp_path):
    target = reference.of_data(tiny.digits().data, PIXELS)
    file = tmp_path / "reference.npz"
    reference.save(file, target.identity, target.statistics())
    read = _of_file(file, tiny.digits(), PIXELS)
    assert read.identity == target.identity
    for extract in (Features("inception", None, "abc", "tf1"), Features("pixels", None, "", "tf1")):
        with pytest.raises(InputError, match="is of digits pixels .*, but digits .*tf1 2 .* is needed"):
            _of_file(file, tiny.digits(), extract)
    reference.save(file, dataclasses.replace(target.identity, fingerprint="abc"), target.statistics())
    with pytest.raises(InputError, match=f"abc, but .*{target.identity.fingerprint}"):
        _of_file(file, tiny.digits(), PIXELS)
    with pytest.raises(InputError, match="digits pixels .*, but mixture1d"):
        _of_file(file, tiny.mixture(), PIXELS)
    for content in (b"", b"not an archive", file.read_bytes()[:2000]):
        file.write_bytes(content)
        with pytest.raises(InputError, match="is damaged: recreate it"):
            _of_file(file, tiny.digits(), PIXELS)
    np.savez(file, other=np.zeros(3))
    with pytest.raises(InputError, match="is damaged"):
        _of_file(file, tiny.digits(), PIXELS)


def test_selfcheck_compares_the_splits_it_has():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (600, 4, 4, 1)).repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8)
    whole = real.Examples(data.Images(blocks, np.zeros(600, np.int32), flip=True), np.arange(600))
    rows = list(selfcheck.compare(whole[:400], whole[400:], PIXELS))
    assert [row.what for row in rows][:2] == ["train, halves", "train, test"]
    assert rows[0].counts == (200, 200) and rows[1].counts == (400, 200)
    rows = list(selfcheck.compare(whole, None, PIXELS))
    assert rows[0].what == "one half, the other half" and rows[0].counts == (300, 300) and len(rows) == 5


def test_noise_and_blur():
    images = np.full((50, 8, 8, 3), 100, np.uint8)
    noisy = selfcheck.add_noise(np.random.default_rng(0), 10, images).astype(float)
    assert noisy.std() == pytest.approx(10, rel=0.05) and noisy.mean() == pytest.approx(100, abs=0.5)
    np.testing.assert_array_equal(selfcheck.blur(0.8, images), images)
    point = np.zeros((1, 9, 9, 1), np.uint8)
    point[0, 4, 4] = 255
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 0.8**2))
    assert selfcheck.blur(0.8, point)[0, 4, 4, 0] == round(255 / weights.sum() ** 2)
