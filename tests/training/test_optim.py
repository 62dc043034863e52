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


def test_inverse_square_root_by_hand():
    """Warm-up to step 2, constant to step 4, then 1 / sqrt(n / 4)."""
    schedule = optim.learning_rate(1.0, "inverse_sqrt", 2, 100, decay_start=4)
    np.testing.assert_allclose([schedule(n) for n in (0, 2, 4, 9, 16)], [1 / 3, 1, 1, 2 / 3, 1 / 2], rtol=1e-6)
    with pytest.raises(InputError, match="decay_start is 4, within the warm-up: use at least .* = 5"):
        optim.learning_rate(1.0, "inverse_sqrt", 5, 100, decay_start=4)


def _optimiser(name="adam", rate=1.0, b1=0.9, eps=1e-8, weight_decay=0.0, clip_norm=1.0):
    return optim.optimiser(name, optax.constant_schedule(rate), b1, 0.999, eps, weight_decay, clip_norm)


@pytest.mark.parametrize("weight_decay, clip_norm", [(0.0, 1.0), (0.1, 0.0)])
def test_updates_are_counted(weight_decay, clip_norm):
    tx, params = _optimiser(weight_decay=weight_decay, clip_norm=clip_norm), {"a": jnp.ones(2)}
    state = tx.init(params)
    for n in range(3):
        assert optim.updates(state) == n
        _, state = tx.update(params, state, params)


def test_gradients_are_clipped_to_the_global_norm():
    tx = _optimiser(b1=0.0)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
    _, state = tx.update(grads, tx.init(params), params)
    mean = optax.tree.get(state, "mu")
    np.testing.assert_allclose(mean["a"], [0.6, 0], rtol=1e-6)
    np.testing.assert_allclose(mean["b"], [0.8], rtol=1e-6)
    free = _optimiser(b1=0.0, clip_norm=0.0)
    _, state = free.update(grads, free.init(params), params)
    np.testing.assert_array_equal(optax.tree.get(state, "mu")["b"], [4.0])


@pytest.mark.parametrize("name", ["adam", "radam"])
def test_weight_decay_takes_its_share_whatever_the_gradient(name):
    p, g = jnp.array([2.0, -4.0]), jnp.array([1e-3, 5e-3])
    plain, decayed = (_optimiser(name, rate=0.5, weight_decay=decay) for decay in (0.0, 0.1))
    updates = [tx.update(g, tx.init(p), p)[0] for tx in (plain, decayed)]
    np.testing.assert_allclose(updates[1] - updates[0], -0.5 * 0.1 * p, rtol=1e-5)


def test_radam_by_its_formula(x64):
    """Liu et al. (2020), algorithm 2, with a gradient of 1: the mean and the root of the square are 1 too, so a step is
    the rectification alone, or the mean alone while the variance is unknown (rho_n <= 5). In float32 the difference in
    rho_n costs the first rectified steps 1 %."""
    tx, w = _optimiser("radam", b1=0.5), jnp.zeros(1)
    state, beta, rho = tx.init(w), 0.999, 2 / (1 - 0.999) - 1
    for n in range(1, 9):
        rho_n = rho - 2 * n * beta**n / (1 - beta**n)
        r = ((rho_n - 4) * (rho_n - 2) * rho / ((rho - 4) * (rho - 2) * rho_n)) ** 0.5 if rho_n > 5 else 1
        update, state = tx.update(jnp.ones(1), state, w)
        np.testing.assert_allclose(update, -r, rtol=1e-6)
    assert r < 0.1
    with pytest.raises(InputError, match="unknown optim.name 'sgd': use one of adam, radam"):
        _optimiser("sgd")


def test_eps_adds_to_the_size_of_the_gradient():
    """Adam's first step is rate * g / (|g| + eps)."""
    tx = _optimiser(eps=1e-3)
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
