import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.features import resize


@pytest.mark.parametrize(
    "rule, size, expected",
    [
        ("half_pixel", 4, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]),
        ("tf1", 4, [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]),
        ("half_pixel", 1, [[0.5, 0.5]]),
        ("tf1", 1, [[1, 0]]),
        ("half_pixel", 2, [[1, 0], [0, 1]]),
        ("tf1", 2, [[1, 0], [0, 1]]),
    ],
)
def test_weights_of_two_pixels(rule, size, expected):
    np.testing.assert_array_equal(resize.matrix(2, size, rule), expected)


@pytest.mark.parametrize("rule, expected", [("half_pixel", {3: 0.5, 4: 0.5}), ("tf1", {0: 1.0})])
def test_shrinking_uses_at_most_two_neighbours(rule, expected):
    first = resize.matrix(16, 2, rule)[0]
    assert {int(i): first[i] for i in np.flatnonzero(first)} == expected


@pytest.mark.parametrize("rule", resize.RULES)
@pytest.mark.parametrize("sizes", [(32, 299), (32, 224), (299, 32), (7, 5), (1, 3)])
def test_weights_of_an_output_pixel_sum_to_one(rule, sizes):
    weights = resize.matrix(*sizes, rule)
    assert weights.shape == sizes[::-1]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    assert np.all(weights >= 0)


@pytest.mark.parametrize("size", [13, 4], ids=["enlarge", "shrink"])
def test_half_pixel_equals_jax_image(size):
    images = jnp.asarray(np.random.default_rng(0).uniform(0, 255, (2, 6, 9, 3)), jnp.float32)
    expected = jax.image.resize(images, (2, size, size, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(resize.resize(images, size, "half_pixel"), expected, atol=1e-4)


def test_tf1_in_two_dimensions():
    images = jnp.asarray([[[0.0, 2.0], [4.0, 8.0]]])[..., None]
    expected = [[0, 1, 2, 2], [2, 3.5, 5, 5], [4, 6, 8, 8], [4, 6, 8, 8]]
    np.testing.assert_array_equal(resize.resize(images, 4, "tf1")[0, :, :, 0], expected)
