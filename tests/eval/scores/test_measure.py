import threading

import numpy as np
import pytest

from eval.features.interface import Features
from eval.frechet import Gaussian
from eval.scores import measure
from eval.scores.measure import Reference, Sample, scores
from sgflow_jax.interfaces import InputError


def _of(features, sizes=(7, 1, 30)):
    """In batches of these sizes, and the rest in one."""
    sample = Sample()
    for batch in np.split(features, np.cumsum(sizes)):
        sample.add(batch)
    return sample


def test_parts_are_interleaved_whatever_the_batches():
    features = np.random.default_rng(0).standard_normal((101, 3))
    sample = _of(features)
    for part in range(measure.PARTS):
        np.testing.assert_allclose(
            sample.moments[part].mean(), features[part :: measure.PARTS].mean(axis=0), rtol=1e-12
        )
        np.testing.assert_allclose(sample.moments[part].cov(), np.cov(features[part :: measure.PARTS].T), rtol=1e-10)
    whole = sample.gaussian()
    np.testing.assert_allclose(whole.cov, np.cov(features.T), rtol=1e-10)
    np.testing.assert_allclose(sample.halves()[1].mean, features[1::2].mean(axis=0), rtol=1e-12)


def test_only_the_first_features_are_kept(monkeypatch):
    monkeypatch.setattr(measure, "KEPT", 20)
    features = np.arange(100.0).reshape(50, 2)
    np.testing.assert_array_equal(_of(features, (7, 1)).kept(), features[:20])


def _standard(dim):
    rng = np.random.default_rng(5)
    return Reference(Gaussian(np.zeros(dim), np.eye(dim)), rng.standard_normal((300, dim)))


def test_standard_error_and_limit_are_right_for_gaussians():
    """N(.1, 1.2) in 10 dimensions against N(0, 1), 400 samples: the bias is half of the distance."""
    dim, n, repeats = 10, 400, 100
    reference = _standard(dim)
    true = reference.gaussian.distance(Gaussian(np.full(dim, 0.1), 1.2 * np.eye(dim)))
    rng = np.random.default_rng(0)
    found = [scores(_of(0.1 + np.sqrt(1.2) * rng.standard_normal((n, dim))), reference) for _ in range(repeats)]
    values, errors, limits = np.array([(s.value, s.value_error, s.value_infinite) for s in found]).T
    assert np.mean(values) > 1.4 * true
    assert np.mean(limits) == pytest.approx(true, abs=0.1 * true)
    assert 0.9 < np.mean(errors) / np.std(values) < 1.3
    assert np.std(errors) < 0.15 * np.mean(errors)
    one = found[0].value_parts
    assert len(one) == measure.PARTS and min(one) > found[0].value


def test_what_few_samples_cannot_tell_is_left_out():
    rng = np.random.default_rng(0)
    reference = _standard(10)
    few = scores(_of(rng.standard_normal((79, 10))), reference)  # parts of 19, less than twice the dimension
    assert (
        few.value_error is None and few.value_parts is None and few.value_infinite is None and few.precision is not None
    )
    assert scores(_of(rng.standard_normal((80, 10))), reference).value_error > 0
    three = scores(_of(rng.standard_normal((3, 10)), ()), reference)
    assert three.precision is None and three.recall is None and np.isfinite(three.value)


def test_classes_are_counted():
    extract = Features("sign", lambda x: x, classify=lambda x: (x[:, 0] > 0).astype(int), classes=3)
    batches = [np.array([[1.0, 0], [2, 1]]), np.array([[-1.0, 3], [1, 1], [4, 4]])]
    found = scores(Sample.of(batches, extract), _standard(2))
    assert found.class_counts == (1, 4, 0)


def test_a_pass_adds_features_in_order_bit_by_bit():
    batches = np.split(np.random.default_rng(0).standard_normal((101, 3)).astype(np.float32), [7, 8, 38, 70])
    one, other = Sample(), Sample.of(batches, Features("same", lambda x: x))
    for batch in batches:
        one.add(batch)
    np.testing.assert_array_equal(other.gaussian().cov, one.gaussian().cov)
    np.testing.assert_array_equal(other.kept(), one.kept())
    assert other.count == one.count == 101


def test_features_are_added_while_the_next_are_made(monkeypatch):
    asked, added, add = threading.Event(), [], Sample.add

    def slow(self, features, counts=None):
        assert asked.wait(30)
        add(self, features, counts)
        added.append(len(features))

    def batches():
        for number in range(4):
            if number == 1:
                assert not added
                asked.set()
            assert len(added) >= number - measure.PENDING  # no more wait than that
            yield np.random.default_rng(number).standard_normal((5, 2))

    monkeypatch.setattr(Sample, "add", slow)
    assert Sample.of(batches(), Features("same", lambda x: x)).count == 20 and len(added) == 4


def test_features_that_are_not_finite_end_the_pass_at_the_same_batch():
    given = []

    def batches():
        for number in range(9):
            given.append(number)
            yield np.full((2, 2), np.nan if number == 3 else number)

    with pytest.raises(InputError, match="not finite"):
        Sample.of(batches(), Features("same", lambda x: x))
    assert given == list(range(4 + measure.PENDING))
    with pytest.raises(InputError, match="not finite"):
        Sample.of([np.full((2, 2), np.nan)], Features("same", lambda x: x))


@pytest.mark.parametrize(
    "features, match",
    [
        (np.ones((20, 2)), "all 20 examples are the same"),
        (np.ones((1, 2)), "at least 2 examples, not 1"),
        (np.array([[0.0, 1], [np.nan, 0]]), "not finite"),
    ],
)
def test_refusals(features, match):
    with pytest.raises(InputError, match=match):
        scores(_of(features, ()), _standard(2))
