"""Oracles against definitions they were not built from: quadrature, an ODE solver and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from sgflow_jax import flow_map, oracles
from sgflow_jax.interfaces import InputError

WEIGHTS, MEANS, STDS = (0.3, 0.5, 0.2), (-2.0, 0.5, 3.0), (0.3, 0.8, 0.5)
MEAN, COV = [1.0, -2.0], [[2.0, 0.6], [0.6, 0.5]]


PATHS = ["linear", "trigonometric"]
ORACLES = [
    pytest.param(oracles.gaussian_mixture(WEIGHTS, MEANS, STDS, path), 1, id=f"mixture-{path}") for path in PATHS
] + [pytest.param(oracles.gaussian(MEAN, COV, path), 2, id=f"gaussian-{path}") for path in PATHS]


def _points(dim, n=6):
    t = jnp.array([0.0, 0.1, 0.3, 0.5, 0.6, 0.9])[:n]
    u = jnp.array([1.0, 0.4, 0.9, 0.6, 1.0, 0.95])[:n]
    return t, u, 1.5 * jax.random.normal(jax.random.key(0), (n, dim))


@pytest.mark.parametrize("path", PATHS)
def test_mixture_velocity_is_the_conditional_mean(path, x64):
    mixture = oracles.gaussian_mixture(WEIGHTS, MEANS, STDS, path)
    t, _, x = _points(1)
    velocity = mixture.velocity(t, x)[:, 0]
    for i in range(1, len(t)):  # at t = 0 the condition x_t = x says nothing of x1
        s, y = float(t[i]), float(x[i, 0])
        at = lambda schedule: float(schedule(jnp.asarray(s)))  # noqa: E731, B023
        schedules = (mixture.path.alpha, mixture.path.sigma, mixture.path.dalpha, mixture.path.dsigma)
        alpha, sigma, dalpha, dsigma = map(at, schedules)

        def joint(x1):
            density = sum(w * scipy.stats.norm.pdf(x1, m, d) for w, m, d in zip(WEIGHTS, MEANS, STDS, strict=True))
            return density * scipy.stats.norm.pdf((y - sigma * x1) / alpha)  # noqa: B023

        grid = np.linspace(-8, 8, 20_001)
        x0 = (y - sigma * grid) / alpha
        expected = np.sum(joint(grid) * (dalpha * x0 + dsigma * grid)) / np.sum(joint(grid))
        np.testing.assert_allclose(velocity[i], expected, rtol=1e-9)


@pytest.mark.parametrize("oracle, dim", ORACLES)
def test_flow_map_solves_the_ode(oracle, dim, x64):
    t, u, x = _points(dim)
    mapped = oracle.flow_map(t, u, x)
    velocity = jax.jit(oracle.velocity)
    for i in range(len(t)):
        solution = scipy.integrate.solve_ivp(
            lambda s, y: np.asarray(velocity(jnp.array([s]), jnp.asarray(y)[None])[0]),
            (float(t[i]), float(u[i])),
            np.asarray(x[i]),
            method="DOP853",
            rtol=1e-11,
            atol=1e-11,
        )
        np.testing.assert_allclose(mapped[i], solution.y[:, -1], atol=1e-8)


@pytest.mark.parametrize("oracle, dim", ORACLES)
def test_three_characterisations(oracle, dim, x64):
    t, u, x = _points(dim)
    F = oracle.average_velocity
    zero, one = jnp.zeros_like(t), jnp.ones_like(t)

    eulerian = flow_map.derivative(F, t, u, x, flow_map.backward_tangent(t, oracle.velocity(t, x)))
    np.testing.assert_allclose(eulerian, 0, atol=1e-9)

    f = flow_map.apply(F, t, u, x)
    lagrangian = flow_map.derivative(F, t, u, x, (zero, one, jnp.zeros_like(x)))
    np.testing.assert_allclose(lagrangian, oracle.velocity(u, f), rtol=1e-9, atol=1e-15)

    s = t + 0.3 * (u - t)
    np.testing.assert_allclose(flow_map.apply(F, s, u, flow_map.apply(F, t, s, x)), f, atol=1e-10)


@pytest.mark.parametrize("oracle, dim", ORACLES)
def test_average_velocity_is_smooth_into_the_diagonal(oracle, dim, x64):
    t, _, x = _points(dim, n=4)
    np.testing.assert_allclose(oracle.average_velocity(t, t, x), oracle.velocity(t, x), rtol=1e-12)
    for gap in 10.0 ** -np.arange(3, 9):
        exact_to_first_order = oracle.velocity(t + gap / 2, x + gap / 2 * oracle.velocity(t, x))
        np.testing.assert_allclose(
            oracle.average_velocity(t, t + gap, x), exact_to_first_order, atol=50 * gap**2 + 1e-9
        )


def test_mixture_keeps_its_tails_in_float32():
    mixture = oracles.gaussian_mixture(WEIGHTS, MEANS, STDS)
    x = jnp.array([[-7.0], [7.0]])
    there = mixture.flow_map(jnp.zeros(2), jnp.ones(2), x)
    back = mixture.flow_map(jnp.ones(2), jnp.zeros(2), there)
    np.testing.assert_allclose(back, x, rtol=1e-4)


def test_samples_have_the_moments():
    n = 40_000
    x = np.asarray(oracles.gaussian(MEAN, COV).sample(jax.random.key(0), n))
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=4 * np.sqrt(2 / n))
    np.testing.assert_allclose(np.cov(x.T), COV, atol=0.06)
    y = np.asarray(oracles.gaussian_mixture(WEIGHTS, MEANS, STDS).sample(jax.random.key(0), n))
    mean = np.dot(WEIGHTS, MEANS)
    variance = np.dot(WEIGHTS, np.square(MEANS) + np.square(STDS)) - mean**2
    assert y.shape == (n, 1)
    assert abs(y.mean() - mean) < 4 * np.sqrt(variance / n)
    assert abs(y.var() - variance) < 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: oracles.gaussian([0.0], [[1.0, 0.0], [0.0, 1.0]]),
        lambda: oracles.gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]),
        lambda: oracles.gaussian_mixture([1.0], [0.0, 1.0], [1.0, 1.0]),
        lambda: oracles.gaussian_mixture([1.0], [0.0], [-1.0]),
    ],
)
def test_bad_laws(make):
    with pytest.raises(InputError):
        make()
