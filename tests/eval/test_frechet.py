import numpy as np
import pytest

from eval.frechet import Gaussian, Moments, frechet_distance
from sgflow_jax.interfaces import InputError


def _random_covariance(rng, dim, samples):
    x = rng.standard_normal((samples, dim))
    return np.cov(x.T)


def test_closed_forms():
    # In one dimension: (m1 - m2)^2 + (s1 - s2)^2.
    assert frechet_distance([1.0], [[4.0]], [3.0], [[9.0]]) == pytest.approx(4 + 1, rel=1e-12)
    # Commuting covariances: the square roots of the eigenvalues.
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    a, b = rng.uniform(0.1, 3, (2, 300))
    mean = rng.standard_normal(300)
    got = frechet_distance(mean, axes * a @ axes.T, mean * 2, axes * b @ axes.T)
    assert got == pytest.approx(mean @ mean + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-9)


@pytest.mark.parametrize("rank_a, rank_b", [pytest.param(2048, 2048, marks=pytest.mark.slow), (500, 2048)])
def test_closed_form_in_2048_dimensions(rank_a, rank_b):
    """Commuting covariances, singular too, as of fewer samples than dimensions: their axes are a reflection's."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(2048)
    axes = np.eye(2048) - 2 * np.outer(normal, normal) / (normal @ normal)
    a, b = (np.where(np.arange(2048) < rank, rng.uniform(0.1, 3, 2048), 0) for rank in (rank_a, rank_b))
    A, B = (axes * variances @ axes for variances in (a, b))
    A, B = (A + A.T) / 2, (B + B.T) / 2
    mean = rng.standard_normal(2048)
    one, other = Gaussian(mean, A), Gaussian(2 * mean, B)
    assert one.distance(other) == pytest.approx(mean @ mean + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-9)
    assert other.distance(one) == pytest.approx(one.distance(other), rel=1e-12)
    assert one.distance(one) <= 1e-12 * np.sum(a)


def test_no_spread_at_all_is_the_distance_of_the_points():
    zero = np.zeros((2, 2))
    assert frechet_distance([0.0, 0.0], zero, [3.0, 4.0], zero) == pytest.approx(25)
    assert frechet_distance([0.0, 0.0], zero, [0.0, 0.0], np.diag([2.0, 1.0])) == pytest.approx(3)


def test_two_by_two_that_does_not_commute():
    """tr (A B)^(1/2) = sqrt(tr(A B) + 2 sqrt(det(A B))) for 2 x 2."""
    A, B = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([[1.0, -0.3], [-0.3, 0.5]])
    root = np.sqrt(np.trace(A @ B) + 2 * np.sqrt(np.linalg.det(A @ B)))
    expected = np.trace(A) + np.trace(B) - 2 * root
    assert frechet_distance(np.zeros(2), A, np.zeros(2), B) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("samples", [500, 20], ids=["regular", "fewer samples than dimensions"])
def test_symmetric_and_zero_on_itself(samples):
    rng = np.random.default_rng(0)
    A, B = _random_covariance(rng, 100, samples), _random_covariance(rng, 100, samples)
    zero = np.zeros(100)
    assert frechet_distance(zero, A, zero, B) == pytest.approx(frechet_distance(zero, B, zero, A), rel=1e-10)
    assert 0 <= frechet_distance(zero, A, zero, A) < 1e-12 * np.trace(A)


def test_singular_covariances_that_do_not_commute():
    """tr (A B)^(1/2) for samples X, Y fewer than dimensions: the nuclear norm of X Y^T, a small matrix."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((5, 40)), rng.standard_normal((7, 40))
    zero = np.zeros(40)
    expected = np.sum(X**2) + np.sum(Y**2) - 2 * np.linalg.norm(X @ Y.T, "nuc")
    assert frechet_distance(zero, X.T @ X, zero, Y.T @ Y) == pytest.approx(expected, rel=1e-12)


def test_orthogonal_singular_covariances():
    """Mass in different directions: nothing is shared, so the traces add up."""
    A, B = np.diag([3.0, 0.0]), np.diag([0.0, 5.0])
    assert frechet_distance(np.zeros(2), A, np.zeros(2), B) == pytest.approx(8)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda m, c: (m * np.nan, c), "not finite"),
        (lambda m, c: (m, c + np.inf), "not finite"),
        (lambda m, c: (m, -c), "positive semidefinite"),
        (lambda m, c: (m, np.diag([1.0, -5.0])), "positive semidefinite"),
        (lambda m, c: (m, np.array([[1.0, 9.0], [0.0, 1.0]])), "symmetric"),
        (lambda m, c: (m[:1], c), "do not match"),
    ],
)
def test_never_a_silent_nan_or_negative(change, match):
    m, c = np.zeros(2), np.diag([1.0, 0.0])
    for arguments in ((*change(m, c), m, c), (m, c, *change(m, c))):
        with pytest.raises(InputError, match=match):
            frechet_distance(*arguments)


def test_streaming_equals_one_shot_far_from_zero():
    x = np.random.default_rng(0).standard_normal((1000, 5)).astype(np.float32) + 1000
    moments = Moments()
    for batch in np.array_split(x, 7):
        moments.add(batch)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean(), x.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(moments.cov(), np.cov(x.T.astype(np.float64)), rtol=1e-10, atol=1e-12)

    parts = [Moments(), Moments(), Moments()]
    parts[0].add(x[:300])
    parts[2].add(x[300:])
    merged = Moments.merged(parts)
    np.testing.assert_allclose(merged.cov(), moments.cov(), rtol=1e-10, atol=1e-12)
    assert parts[0].count == 300 and merged.count == 1000


@pytest.mark.parametrize("rank", [6, 3])
def test_influence_is_the_derivative_of_the_distance(rank):
    """Of a weighted sample by the weight of one example, by differences; a singular reference too."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 6)) @ rng.standard_normal((6, 6)) + 1
    B = rng.standard_normal((rank, 6))
    reference = Gaussian(np.ones(6), B.T @ B)

    def distance(i, weight):
        """Example i counted 1 + 30 weight times, and the whole less, so that the weights still sum to 30."""
        weights = np.full(30, (1 - weight) / 30)
        weights[i] += weight
        mean = weights @ x
        cov = (weights * (x - mean).T) @ (x - mean)
        return Gaussian(mean, cov).distance(reference)

    step = 1e-4
    expected = [(distance(i, step) - distance(i, -step)) / (2 * step) for i in range(30)]
    sample = Gaussian(x.mean(axis=0), np.cov(x.T, ddof=0))
    np.testing.assert_allclose(sample.influence(reference, x), expected, rtol=1e-5, atol=1e-4)


def test_moments_refuse_what_has_none():
    moments = Moments()
    moments.add(np.zeros((1, 3)))
    with pytest.raises(InputError, match="at least 2"):
        moments.cov()
    with pytest.raises(InputError, match="not finite"):
        moments.add(np.full((2, 3), np.nan))
