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
    average, averaging = jnp.array(5.0), optim.Averaging(0.999)
    for step, (value, expected) in enumerate([(1.0, 0.1 * 5 + 0.9 * 1), (2.0, 2 / 11 * 1.4 + 9 / 11 * 2)]):
        average = averaging.update(average, jnp.array(value), step)
        np.testing.assert_allclose(average, expected, rtol=1e-6)
    late = averaging.update(jnp.array(1.0), jnp.array(2.0), 10**6)
    np.testing.assert_allclose(late, 0.999 * 1 + 0.001 * 2, rtol=1e-6)


@pytest.mark.parametrize(
    "warmup, step, decay",
    [("none", 0, 0.99), ("half_life", 0, 0), ("half_life", 20, 1 / 2), ("half_life", 40, 0.5**0.5)]
    + [("half_life", 10**6, 0.99), ("steps", 8, 1 / 2)],
)
def test_warmups_of_an_average(warmup, step, decay):
    """Karras et al. (2022): after n steps the half-life is at most n / 20 steps."""
    averaging = optim.Averaging(0.99, warmup=warmup)
    found = averaging.update(jnp.array(1.0), jnp.array(0.0), jnp.int32(step))
    np.testing.assert_allclose(found, decay, rtol=1e-5)


def test_a_half_life_halves_the_weight_of_what_was_before():
    """500,000 images in batches of 512, as in EDM."""
    assert optim.decay_of(500_000, 512) ** (500_000 / 512) == pytest.approx(0.5)
    assert optim.decay_of(500_000, 512) == pytest.approx(0.99929, abs=1e-5)


def test_further_averages_have_their_own_decays():
    averaging = optim.Averaging(0.9999, (0.9996, 0.99995), "none")
    averages = averaging.init_more({"w": jnp.zeros(1)})
    assert list(averages) == ["ema_0.9996", "ema_0.99995"]
    averages = averaging.update_more(averages, {"w": jnp.ones(1)}, 0)
    np.testing.assert_allclose([a["w"][0] for a in averages.values()], [4e-4, 5e-5], rtol=2e-3)
    for more in ((0.9999,), (0.9, 0.9)):
        with pytest.raises(InputError, match="more_ema_decays is .*: leave out the repeats"):
            optim.Averaging(0.9999, more)
