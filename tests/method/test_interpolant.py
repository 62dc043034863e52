import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import interpolant, oracles
from sgflow_jax.interfaces import InputError
from tests import independent


def test_linear_by_hand():
    x_t, dx_t = interpolant.make("linear").sample(jnp.array([0.25]), jnp.array([[2.0, 0.0]]), jnp.array([[6.0, 4.0]]))
    np.testing.assert_allclose(x_t, [[3.0, 1.0]])
    np.testing.assert_allclose(dx_t, [[4.0, 4.0]])


@pytest.mark.parametrize("name", ["linear", "trigonometric"])
def test_runs_from_noise_to_data_with_its_own_velocity(name, x64):
    path = interpolant.make(name)
    x0, x1 = jax.random.normal(jax.random.key(0), (2, 5, 3, 2))
    np.testing.assert_allclose(path.sample(jnp.zeros(5), x0, x1)[0], x0, atol=1e-15)
    np.testing.assert_allclose(path.sample(jnp.ones(5), x0, x1)[0], x1, atol=1e-15)

    t, h = jnp.linspace(0.1, 0.9, 5), 1e-6
    difference = (path.sample(t + h, x0, x1)[0] - path.sample(t - h, x0, x1)[0]) / (2 * h)
    np.testing.assert_allclose(path.sample(t, x0, x1)[1], difference, rtol=1e-8, atol=1e-8)


def test_an_unknown_name_is_rejected_with_the_known_ones():
    with pytest.raises(InputError, match="'cubic'.*linear, trigonometric"):
        interpolant.make("cubic")


@pytest.mark.parametrize("name", independent.PATHS)
def test_mean_velocity_is_the_posterior_mean_over_the_data(name, x64):
    rng = np.random.default_rng(0)
    data, x0, t = rng.standard_normal((7, 3)), rng.standard_normal((4, 3)), np.array([0.0, 0.2, 0.5, 0.8])
    expected = independent.mean_velocity(independent.PATHS[name], t, x0, data[:4], data)

    path = interpolant.make(name)
    got = path.mean_velocity(*map(jnp.asarray, (t, x0, data[:4], data)))
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    assert np.max(np.abs(expected - path.sample(jnp.asarray(t), x0, data[:4])[1])) > 0.1

    alike = rng.random((4, 7)) < 0.4
    np.fill_diagonal(alike, True)
    own = independent.mean_velocity(independent.PATHS[name], t, x0, data[:4], [data[mask] for mask in alike])
    got = path.mean_velocity(*map(jnp.asarray, (t, x0, data[:4], data, alike)))
    np.testing.assert_allclose(got, own, rtol=1e-10)
    assert np.max(np.abs(own - expected)) > 0.1

    images = [jnp.asarray(a).reshape(-1, 3, 1, 1) for a in (x0, data[:4], data)]
    np.testing.assert_allclose(path.mean_velocity(jnp.asarray(t), *images).reshape(4, 3), expected, rtol=1e-10)


@pytest.mark.parametrize("name", independent.PATHS)
def test_mean_velocity_has_the_mean_of_dx_t_given_x_t_and_less_variance(name, x64):
    """E[h(x_t) dx_t], the form of a gradient, for several h, from many batches."""
    path, oracle = interpolant.make(name), oracles.gaussian_mixture((0.7, 0.3), (-1.0, 2.0), (0.5, 0.4))

    def statistics(key):
        key_t, key_noise, key_data = jax.random.split(key, 3)
        t, x0, x1 = jax.random.uniform(key_t, (16,)), jax.random.normal(key_noise, (16, 1)), oracle.sample(key_data, 16)
        x_t, dx_t = path.sample(t, x0, x1)
        h = jnp.concatenate([jnp.ones_like(x_t), x_t, jnp.tanh(3 * x_t), t[:, None] * x_t**2], axis=1)
        return jnp.mean(h * dx_t, axis=0), jnp.mean(h * path.mean_velocity(t, x0, x1, x1), axis=0)

    pair, batch = jax.jit(jax.vmap(statistics))(jax.random.split(jax.random.key(0), 4_000))
    difference = pair - batch
    assert np.all(np.abs(difference.mean(axis=0)) < 4 * difference.std(axis=0) / np.sqrt(len(pair)))
    assert np.all(batch.var(axis=0) < 0.97 * pair.var(axis=0))


@pytest.mark.parametrize("name", independent.PATHS)
def test_mean_velocity_tends_to_the_velocity_of_the_pair_at_the_data(name):
    """In float32, up to t = 1, where division cannot recover the noise in x_t."""
    x0, data = jax.random.normal(jax.random.key(0), (2, 6, 2))
    for t in (0.99, 1 - 2.0**-12, 1 - 2.0**-23, 1 - 2.0**-24, 1.0):
        t = jnp.full(6, t, jnp.float32)
        got = interpolant.make(name).mean_velocity(t, x0, data, data)
        np.testing.assert_allclose(got, interpolant.make(name).sample(t, x0, data)[1], rtol=1e-4, atol=1e-4)
