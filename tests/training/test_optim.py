import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgflow_jax import optim
from sgflow_jax.interfaces import InputError


def test_learning_rate_by_hand():
    schedule = optim.learning_rate(1.0, "constant", warmup_steps=3, num_steps=10)
    np.testing.assert_allclose([schedule(i) for i in (0, 1, 2, 3, 9)], [0.25, 0.5, 0.75, 1, 1], rtol=1e-6)
    schedule = optim.learning_rate(1.0, "cosine", warmup_steps=2, num_steps=10)
    np.testing.assert_allclose([schedule(i) for i in (2, 6, 10)], [1, 0.5, 0], atol=1e-6)
    assert optim.learning_rate(1.0, "constant", warmup_steps=0, num_steps=10)(0) == 1
    with pytest.raises(InputError, match="'step'.*constant, cosine"):
        optim.learning_rate(1.0, "step", 0, 10)


def test_gradients_are_clipped_to_the_global_norm():
    tx = optim.adam(optax.constant_schedule(1.0), b1=0.0, b2=0.999, eps=1e-8, clip_norm=1.0)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
    _, state = tx.update(grads, tx.init(params), params)
    mean = optax.tree.get(state, "mu")
    np.testing.assert_allclose(mean["a"], [0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(mean["b"], [0.8], rtol=1e-6)


def test_eps_adds_to_the_size_of_the_gradient():
    """Adam's first step is rate * g / (|g| + eps)."""
    tx = optim.adam(optax.constant_schedule(1.0), b1=0.9, b2=0.999, eps=1e-3, clip_norm=1.0)
    g = jnp.array([1e-3, -3e-3])
    np.testing.assert_allclose(tx.update(g, tx.init(g), g)[0], [-1 / 2, 3 / 4], rtol=1e-4)


def test_average_by_hand():
    """During warm-up the decays are 1/10, 2/11, 3/12, ...; then the decay is constant."""
    average = jnp.array(5.0)
    for step, (value, expected) in enumerate([(1.0, 0.1 * 5 + 0.9 * 1), (2.0, 2 / 11 * 1.4 + 9 / 11 * 2)]):
        average = optim.update_average(average, jnp.array(value), step, 0.999)
        np.testing.assert_allclose(average, expected, rtol=1e-6)
    late = optim.update_average(jnp.array(1.0), jnp.array(2.0), 10**6, 0.999)
    np.testing.assert_allclose(late, 0.999 * 1 + 0.001 * 2, rtol=1e-6)
