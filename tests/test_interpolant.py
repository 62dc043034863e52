import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import interpolant
from sgflow_jax.interfaces import InputError


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


def test_unknown_name_says_what_there_is():
    with pytest.raises(InputError, match="'cubic'.*linear, trigonometric"):
        interpolant.make("cubic")
