import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import oracles, sampling
from sgflow_jax.interfaces import InputError

ORACLE = oracles.gaussian_mixture((0.7, 0.3), (-1.0, 2.0), (0.5, 0.4))


def _noise():
    return jax.random.normal(jax.random.key(0), (64, 1))


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_exact_map_is_exact_in_any_number_of_steps(steps, x64):
    x0 = _noise()
    expected = ORACLE.flow_map(jnp.zeros(64), jnp.ones(64), x0)
    got = sampling.sample(ORACLE.average_velocity, x0, jnp.linspace(0, 1, steps + 1))
    np.testing.assert_allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize("method, order", [("euler", 1), ("heun", 2)])
def test_order_of_convergence(method, order, x64):
    x0 = _noise()
    expected = ORACLE.flow_map(jnp.zeros(64), jnp.ones(64), x0)
    net = lambda t, u, x: ORACLE.velocity(t, x)  # noqa: E731

    def error(steps):
        return float(jnp.max(jnp.abs(sampling.sample(net, x0, jnp.linspace(0, 1, steps + 1), method) - expected)))

    assert abs(np.log2(error(128) / error(256)) - order) < 0.1


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_integrators_look_at_the_diagonal_only(method):
    net = lambda t, u, x: jnp.where((t == u)[:, None], x, jnp.nan)  # noqa: E731
    assert np.all(np.isfinite(sampling.sample(net, _noise(), jnp.linspace(0, 1, 4), method)))


@pytest.mark.parametrize("method, calls", [("flow_map", 5), ("euler", 5), ("heun", 6)])
def test_network_calls_are_what_was_asked_for(method, calls):
    counted = []

    def net(t, u, x):
        jax.debug.callback(lambda: counted.append(1))
        return x

    sampling.sample(net, _noise(), sampling.uniform_times(calls, method), method)
    jax.effects_barrier()
    assert len(counted) == calls


def test_times_are_free():
    """An uneven grid, not from 0 to 1: constant velocity 2 over a gap of 0.6."""
    net = lambda t, u, x: jnp.full_like(x, 2.0)  # noqa: E731
    for method in sampling.METHODS:
        got = sampling.sample(net, jnp.zeros((1, 1)), jnp.array([0.1, 0.2, 0.7]), method)
        np.testing.assert_allclose(got, 1.2, rtol=1e-6)


def test_bad_requests():
    with pytest.raises(InputError, match="'rk4'.*flow_map, euler, heun"):
        sampling.sample(ORACLE.average_velocity, _noise(), jnp.linspace(0, 1, 3), "rk4")
    with pytest.raises(InputError, match="heun cannot spend 3.*multiple of 2"):
        sampling.uniform_times(3, "heun")
    with pytest.raises(InputError, match="cannot spend 0"):
        sampling.uniform_times(0)
