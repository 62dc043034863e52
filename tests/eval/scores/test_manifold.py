import numpy as np
import pytest

from eval.scores import manifold as module
from eval.scores.manifold import manifold, precision_recall, squared_distances
from sgflow_jax.interfaces import InputError


def test_radius_is_that_of_the_third_other_point():
    found = manifold(np.array([[0.0], [1.0], [3.0], [7.0]]))
    np.testing.assert_allclose(found.radii_sq, [49, 36, 16, 49])


def test_by_hand():
    """Real points at 0, 1, 2, 3 (radii 3, 2, 2, 3); generated at 2.5, 5, 5.5, 20 (radii 17.5, 15, 14.5, 17.5)."""
    real = manifold(np.array([[0.0], [1.0], [2.0], [3.0]]))
    made = manifold(np.array([[2.5], [5.0], [5.5], [20.0]]))
    # 2.5, 5 and 5.5 are within 3 of the point 3; every real point is within 17.5 of 2.5.
    assert precision_recall(made, real) == (0.75, 1.0)
    # The other way round the roles change.
    assert precision_recall(real, made) == (1.0, 0.75)


def test_collapse_costs_recall_and_invention_precision():
    rng = np.random.default_rng(0)
    real = manifold(rng.standard_normal((500, 2)))
    same = precision_recall(manifold(rng.standard_normal((500, 2))), real)
    narrow = precision_recall(manifold(0.01 * rng.standard_normal((500, 2))), real)
    wide = precision_recall(manifold(10 * rng.standard_normal((500, 2))), real)
    assert min(same) > 0.9
    assert narrow.precision > 0.95 and narrow.recall < 0.05
    assert wide.precision < 0.2 and wide.recall > 0.8


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 50, 4)) + 1000.0
    whole = precision_recall(manifold(a), manifold(b))
    monkeypatch.setattr(module, "ROWS", 7)
    assert precision_recall(manifold(a), manifold(b)) == whole


def test_distances_far_from_zero():
    a = np.array([[1e6, 0.0], [1e6 + 1, 0.0]])
    np.testing.assert_allclose(squared_distances(a, a), [[0, 1], [1, 0]], atol=1e-9)


def test_needs_four():
    with pytest.raises(InputError, match="at least 4 examples, not 3"):
        manifold(np.zeros((3, 2)))
