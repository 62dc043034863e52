import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import generate, sharding
from sgflow_jax.interfaces import InputError
from tests.test_models import MLP, UNET, bound


def _plan(shape, batch_size, seed=0, calls=2, method="flow_map", path="linear"):
    return generate.Plan(shape, calls, method, seed, batch_size, path)


@pytest.mark.parametrize("method", ["flow_map", "consistency"])
def test_example_i_depends_on_seed_and_i_only(method, monkeypatch):
    net = bound("mlp", MLP, (2,))

    def examples(batch_size, count, seed=0):
        return generate.examples(net, _plan((2,), batch_size, seed, 3, method), count)

    ten = examples(4, 10)
    assert ten.shape == (10, 2) and len(np.unique(ten[:, 0])) == 10
    np.testing.assert_allclose(examples(100, 10), ten, rtol=1e-5)
    np.testing.assert_allclose(examples(4, 3), ten[:3], rtol=1e-5)
    assert np.all(examples(4, 10, seed=1) != ten)

    one_device = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "mesh", lambda: one_device)
    np.testing.assert_allclose(examples(4, 10), ten, rtol=1e-5)


def test_consistency_sampling_returns_to_noise_that_is_new_on_the_path_it_is_told():
    """With F = 0 two steps give sigma_t x0 + alpha_t noise at t = 1/2, of variance sigma^2 + alpha^2."""
    net = bound("mlp", MLP, (2,), offset=0.0)
    for path, variance in [("linear", 1 / 2), ("trigonometric", 1)]:
        made = generate.examples(net, _plan((2,), 4_000, 0, 2, "consistency", path), 4_000)
        np.testing.assert_allclose(np.cov(made.T), variance * np.eye(2), atol=0.1)


def test_images_are_uint8():
    net = bound("unet", UNET, (8, 8, 3), offset=0.0)  # F = 0, so the examples are the noise
    images = generate.examples(net, _plan((8, 8, 3), 8), 8)
    assert images.shape == (8, 8, 8, 3) and images.dtype == np.uint8
    # P(|N(0, 1)| > 1) of the pixels are clipped.
    assert abs(np.mean((images == 0) | (images == 255)) - 0.3173) < 0.05


def test_class_labels_are_drawn_for_each_example():
    net = bound("mlp", {**MLP, "num_classes": 10}, (2,), jnp.zeros(1, jnp.int32))
    ten = generate.examples(net, _plan((2,), 4), 10)
    np.testing.assert_allclose(generate.examples(net, _plan((2,), 12), 10), ten, rtol=1e-5)
    as_one_class = [net.replace(model=net.model, params=_one_class(net.params, k)) for k in (0, 1)]
    one, other = (generate.examples(n, _plan((2,), 4), 10) for n in as_one_class)
    assert np.all(one != other), "the label matters"
    assert np.any(ten != one), "and it is not always the first"


def _one_class(params, k):
    """Parameters for which every label acts as label k."""
    table = params["label"]["embedding"]
    return {**params, "label": {"embedding": jnp.broadcast_to(table[k], table.shape)}}


def test_numbers_that_are_not_finite_are_said():
    net = bound("unet", UNET, (8, 8, 3))
    net = net.replace(params=jax.tree.map(lambda p: p * jnp.nan, net.params))
    with pytest.raises(InputError, match="not finite"):
        generate.examples(net, _plan((8, 8, 3), 4), 4)
