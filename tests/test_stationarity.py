"""Every objective stops at the exact map and pulls towards it from elsewhere, on data whose map is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import objectives, oracles


def _stationarity(objective, oracle, dim, wrong, batches=24, size=2048):
    """z of the expected gradient with respect to a perturbation of the network, at the truth plus wrong times it."""

    def gradient(theta, key):
        k0, k1, k2 = jax.random.split(key, 3)

        def loss(theta):
            net = lambda t, u, x: (  # noqa: E731
                oracle.average_velocity(t, u, x) + theta * jnp.tanh(x) * (1 + t + u)[:, None]
            )
            return jnp.mean(objective(net, jax.random.normal(k0, (size, dim)), oracle.sample(k1, size), k2).per_example)

        return jax.grad(loss)(theta)

    gradients = jax.jit(jax.vmap(gradient, (None, 0)))(wrong, jax.random.split(jax.random.key(7), batches))
    return float(gradients.mean() / (gradients.std() / np.sqrt(batches)))


MIXTURE = oracles.gaussian_mixture((0.7, 0.3), (-1.0, 2.5), (0.5, 0.3))
GAUSSIAN = oracles.gaussian([1.0, -1.0], [[2.0, 0.5], [0.5, 0.7]])


@pytest.mark.parametrize("name", objectives.names())
@pytest.mark.parametrize("oracle, dim", [(MIXTURE, 1), (GAUSSIAN, 2)], ids=["mixture", "gaussian"])
def test_stops_at_the_truth_and_nowhere_near(name, oracle, dim, x64):
    objective = objectives.make(name)
    assert abs(_stationarity(objective, oracle, dim, 0.0)) < 4
    assert _stationarity(objective, oracle, dim, 0.3) > 8
    assert _stationarity(objective, oracle, dim, -0.3) < -8


def test_split_stops_at_the_truth(x64):
    assert abs(_stationarity(objectives.make("sgflow", estimator="split"), GAUSSIAN, 2, 0.0)) < 4
    assert _stationarity(objectives.make("sgflow", estimator="split"), GAUSSIAN, 2, 0.5) > 8


def test_adaptive_weight_moves_the_stationary_point_of_a_mixture(x64):
    assert abs(_stationarity(objectives.make("mean_flow", adaptive_power=1.0), MIXTURE, 1, 0.0, batches=80)) > 8


@pytest.mark.parametrize("options", [{"interpolant": "trigonometric"}, {"time_law": "logit_normal"}])
def test_options_keep_the_stationary_point(options, x64):
    oracle = oracles.gaussian([1.0], [[0.5]], options.get("interpolant", "linear"))
    assert abs(_stationarity(objectives.make("sgflow", **options), oracle, 1, 0.0)) < 4
