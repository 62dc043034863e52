import numpy as np
import pytest

from eval.scores.kernel import kernel_distance
from sgflow_jax.interfaces import InputError


def test_by_hand():
    """One feature, two of each: k(x, y) = (x y + 1)^3."""
    a, b = np.array([[0.0], [1.0]]), np.array([[2.0], [-1.0]])
    # k(0,1) = 1; k(2,-1) = -1; cross: k(0,.) = 1, 1; k(1,2) = 27, k(1,-1) = 0.
    found = kernel_distance(a, b)
    assert found.value == pytest.approx(1 - 1 - 2 * (1 + 1 + 27 + 0) / 4)
    assert found.standard_error is None


def test_blocks_leave_no_pair_out():
    a, b = np.random.default_rng(0).standard_normal((2, 57, 3))

    def kernel(x, y):
        return (x @ y.T / 3 + 1) ** 3

    off = ~np.eye(57, dtype=bool)
    expected = kernel(a, a)[off].mean() + kernel(b, b)[off].mean() - 2 * kernel(a, b).mean()
    assert kernel_distance(a, b).value == pytest.approx(expected, rel=1e-12)


def test_against_the_expectation_for_gaussians():
    """x ~ N(0, 1), y ~ N(m, s^2): E (x x' + 1)^3 = 1 + 3 E x^2 E x'^2 and so on, by moments; unbiased, and as far off
    as the standard error says."""
    m, s = 0.5, 1.3

    def moments(mean, std):
        return [1, mean, mean**2 + std**2, mean**3 + 3 * mean * std**2]

    def expected(p, q):
        return sum(c * p[k] * q[k] for k, c in enumerate([1, 3, 3, 1]))

    x, y = moments(0, 1), moments(m, s)
    true = expected(x, x) + expected(y, y) - 2 * expected(x, y)
    rng = np.random.default_rng(0)
    found = [kernel_distance(rng.standard_normal((400, 1)), m + s * rng.standard_normal((500, 1))) for _ in range(200)]
    values, errors = np.array(found).T
    assert np.mean(values) == pytest.approx(true, abs=4 * np.std(values) / np.sqrt(200))
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(np.std(values), rel=0.2)


def test_needs_two():
    with pytest.raises(InputError, match="at least 2 examples, not 1"):
        kernel_distance(np.zeros((1, 3)), np.zeros((5, 3)))
