"""Oracles against independent definitions: quadrature, scipy's ODE solver and one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from sgflow_jax import flow_map, oracles
from sgflow_jax.interfaces import InputError

WEIGHTS, MEANS, STDS = (0.3, 0.5, 0.2), (-2.0, 0.5, 3.0), (0.3, 0.8, 0.5)
MEANS_2D, STDS_2D = ((-1.5, 0.0), (1.0, 1.5), (0.5, -1.0)), ((0.3, 0.6), (0.2, 0.2), (0.8, 0.15))
MEAN, COV = [1.0, -2.0], [[2.0, 0.6], [0.6, 0.5]]
ANGLES = 2 * np.pi * np.arange(8) / 8
CIRCLE = 2 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


PATHS = ["linear", "trigonometric"]
MIXTURES = [(MEANS, STDS, 1), (MEANS_2D, STDS_2D, 2)]
ORACLES = [
    pytest.param(oracle, dim, id=f"{name}-{path}")
    for path in PATHS
    for name, oracle, dim in [
        ("mixture", oracles.gaussian_mixture(WEIGHTS, MEANS, STDS, path), 1),
        ("mixture2d", oracles.gaussian_mixture(WEIGHTS, MEANS_2D, STDS_2D, path), 2),
        ("gaussian", oracles.gaussian(MEAN, COV, path), 2),
    ]
]


# Each distribution once; the velocity and the map are tested on both interpolants.
SOME = [ORACLES[3], ORACLES[1], ORACLES[5]]


def _points(dim, n=6):
    t = jnp.array([0.0, 0.1, 0.3, 0.5, 0.6, 0.9])[:n]
    u = jnp.array([1.0, 0.4, 0.9, 0.6, 1.0, 0.95])[:n]
    return t, u, 1.5 * jax.random.normal(jax.random.key(0), (n, dim))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("means, stds, dim", MIXTURES)
def test_mixture_velocity_is_the_conditional_mean(means, stds, dim, path, x64):
    mixture = oracles.gaussian_mixture(WEIGHTS, means, stds, path)
    axis = np.arange(-8, 8, 0.02)
    x1 = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    density = sum(
        w * np.prod(scipy.stats.norm.pdf(x1, m, s), axis=1) for w, m, s in zip(WEIGHTS, means, stds, strict=True)
    )
    t, _, x = _points(dim)
    velocity = mixture.velocity(t, x)
    schedules = [getattr(mixture.interpolant, name) for name in ("alpha", "sigma", "dalpha", "dsigma")]
    for i in range(1, len(t)):  # at t = 0, x_t says nothing about x1
        alpha, sigma, dalpha, dsigma = (float(schedule(t[i])) for schedule in schedules)
        x0 = (np.asarray(x[i]) - sigma * x1) / alpha
        joint = density * np.prod(scipy.stats.norm.pdf(x0), axis=1)
        expected = joint @ (dalpha * x0 + dsigma * x1) / np.sum(joint)
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


@pytest.mark.parametrize("oracle, dim", SOME)
def test_three_characterisations(oracle, dim, x64):
    t, u, x = _points(dim)
    F = oracle.average_velocity
    zero, one = jnp.zeros_like(t), jnp.ones_like(t)

    eulerian = flow_map.derivative(F, t, u, x, flow_map.backward_tangent(t, oracle.velocity(t, x)))
    np.testing.assert_allclose(eulerian, 0, atol=1e-9)

    f = flow_map.apply(F, t, u, x)
    lagrangian = flow_map.derivative(F, t, u, x, (zero, one, jnp.zeros_like(x)))
    np.testing.assert_allclose(lagrangian, oracle.velocity(u, f), rtol=1e-9, atol=1e-13)

    s = t + 0.3 * (u - t)
    np.testing.assert_allclose(flow_map.apply(F, s, u, flow_map.apply(F, t, s, x)), f, atol=1e-10)


def _independent(oracle, t, u, x, tangent):
    """F and its derivative along the tangent in float64: scipy solves the ODE of the average and its derivative."""

    def slope(q, t, u, x, tau):
        return oracle.velocity(t + tau * (u - t), x + (u - t)[:, None] * q)

    @jax.jit
    def slopes(tau, y):
        q, dq = y.reshape(2, *x.shape)
        return jnp.stack(jax.jvp(lambda *point: slope(*point, tau), (q, t, u, x), (dq, *tangent))).ravel()

    solution = scipy.integrate.solve_ivp(
        lambda tau, y: np.asarray(slopes(tau, y)), (0, 1), np.zeros(2 * x.size), method="DOP853", rtol=1e-13, atol=1e-13
    )
    return solution.y[:, -1].reshape(2, *x.shape)


SHARP = oracles.gaussian_mixture((0.4, 0.6), (-0.1, 0.1), (0.02, 0.02))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("oracle, dim", [*SOME, pytest.param(SHARP, 1, id="sharp")])
def test_average_velocity_and_its_derivatives_near_the_diagonal(oracle, dim, dtype, x64, mixed_dtypes):
    switch = float(jnp.finfo(dtype).eps) ** (1 / 9) / 2
    gap = jnp.outer(jnp.array([-1, 1]), switch * jnp.array([0, 1e-6, 1e-3, 0.1, 0.99, 1.01, 2, 0.5 / switch])).ravel()
    gap, which = jnp.tile(gap, 6), jnp.repeat(jnp.arange(3), 2 * gap.size)  # each gap twice along t, u and x
    t = jax.random.uniform(jax.random.key(1), gap.shape).astype(dtype)
    u = jnp.clip(t + gap.astype(dtype), 0, 1)
    x0, direction = (jax.random.normal(jax.random.key(k), (gap.size, dim)) for k in (2, 3))
    x = oracle.interpolant.sample(t, x0, oracle.sample(jax.random.key(4), gap.size))[0].astype(dtype)
    tangent = (1.0 * (which == 0), 1.0 * (which == 1), jnp.where((which == 2)[:, None], direction, 0))
    tangent = tuple(a.astype(dtype) for a in tangent)

    found = flow_map.average_velocity_derivative(oracle.average_velocity, t, u, x, tangent)
    assert found[0].dtype == found[1].dtype == dtype
    expected = _independent(oracle, *jax.tree.map(lambda a: a.astype("float64"), (t, u, x, tangent)))
    rtol = {"float64": (1e-12, 1e-10), "float32": (1e-5, 1e-3)}[dtype]
    np.testing.assert_allclose(found[0], expected[0], rtol=rtol[0], atol=rtol[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=rtol[1], atol=rtol[1])


def test_solver_agrees_with_the_monotone_transport_in_both_directions(x64):
    line = oracles.gaussian_mixture(WEIGHTS, MEANS, STDS)
    solver = oracles.gaussian_mixture(WEIGHTS, np.array(MEANS)[:, None], STDS)
    t, u, x = _points(1)
    t, u, x = jnp.append(t, u), jnp.append(u, t), jnp.tile(x, (2, 1))

    def loss(oracle):
        """Contains a derivative of the map, as the objectives do."""

        def call(*point):
            return jnp.sum(jnp.sin(jax.jvp(oracle.flow_map, point, (jnp.ones_like(t), -jnp.ones_like(t), x))[1]))

        return jax.jit(jax.value_and_grad(call, (0, 1, 2)))(t, u, x)

    np.testing.assert_allclose(solver.flow_map(t, u, x), line.flow_map(t, u, x), rtol=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8), loss(solver), loss(line))


SHARES = (0.6, 0.4)
CLASSES = [((0.6, 0.4), (-1.4, 0.8), (0.5, 0.35)), ((1.0,), (2.0,), (0.4,))]


def _guided_velocity(W, t, x, label):
    """v_null + W (v_c - v_null) on the line, from sums over components with densities of x_t."""
    weights = np.array([0.36, 0.24, 0.4])
    means, stds, owner = np.array([-1.4, 0.8, 2.0]), np.array([0.5, 0.35, 0.4]), np.array([0, 0, 1])

    def mean(chosen):
        variance = (1 - t) ** 2 + t**2 * stds**2
        density = chosen * weights * scipy.stats.norm.pdf(x, t * means, np.sqrt(variance))
        v = means + (t * stds**2 - (1 - t)) / variance * (x - t * means)
        return density @ v / density.sum()

    null = mean(np.ones(3))
    return null if label == 2 else null + W * (mean(owner == label) - null)


@pytest.mark.parametrize("W", [0.0, 1.0, 2.5])
def test_the_guided_velocity_and_its_map(W, x64):
    oracle = oracles.labelled_mixture(SHARES, CLASSES, W)
    assert oracle.num_classes == 2
    t, u, x = (jnp.concatenate([a] * 3) for a in _points(1))
    label = jnp.repeat(jnp.arange(3), 6)
    points = list(zip(t, x[:, 0], label, strict=True))
    np.testing.assert_allclose(
        oracle.velocity(t, x, label)[:, 0], [_guided_velocity(W, *map(float, p)) for p in points], rtol=1e-10
    )

    mapped = oracle.flow_map(t, u, x, label)
    for i in range(0, 18, 3):
        solution = scipy.integrate.solve_ivp(
            lambda s, y, c=int(label[i]): [_guided_velocity(W, s, y[0], c)],
            (float(t[i]), float(u[i])),
            np.asarray(x[i]),
            method="DOP853",
            rtol=1e-12,
            atol=1e-12,
        )
        np.testing.assert_allclose(mapped[i], solution.y[:, -1], atol=1e-9)
    twice = oracle.union._solve(t, u, x, 2 * oracle.union.steps, lambda t, x: oracle.velocity(t, x, label))
    np.testing.assert_allclose(oracle.average_velocity(t, u, x, label), twice, atol=1e-10)

    if W == 1:
        laws = [oracles.gaussian_mixture(*law) for law in CLASSES] + [oracle.union]
        exact = jnp.concatenate(
            [law.flow_map(*(a[6 * c : 6 * c + 6] for a in (t, u, x))) for c, law in enumerate(laws)]
        )
        np.testing.assert_allclose(mapped, exact, atol=1e-10)


def test_labelled_samples_are_of_their_classes():
    n = 40_000
    x, label = oracles.labelled_mixture(SHARES, CLASSES).sample(jax.random.key(0), n)
    assert x.shape == (n, 1)
    for c, (share, (weights, means, stds)) in enumerate(zip(SHARES, CLASSES, strict=True)):
        own = np.asarray(x[label == c, 0])
        mean = np.dot(weights, means)
        variance = np.dot(weights, np.square(stds) + np.square(means)) - mean**2
        assert abs(len(own) / n - share) < 4 * np.sqrt(0.25 / n)
        assert abs(own.mean() - mean) < 4 * np.sqrt(variance / len(own))
        np.testing.assert_allclose(own.var(), variance, rtol=0.05)


def test_eight_gaussians_on_a_circle_to_eight_digits(x64):
    oracle = oracles.gaussian_mixture(np.ones(8), CIRCLE, np.full(8, 0.1))
    x = jax.random.normal(jax.random.key(0), (24, 2))
    # The last points are close to a line between two components, where a small change selects one of them.
    along, across = np.array([np.cos(np.pi / 8), np.sin(np.pi / 8)]), np.array([-np.sin(np.pi / 8), np.cos(np.pi / 8)])
    x = jnp.concatenate([x, along + np.array([[1e-2], [-1e-4], [1e-6]]) * across])
    mapped = oracle.flow_map(jnp.zeros(len(x)), jnp.ones(len(x)), x)

    def velocity(s, y):
        """The velocity for components of equal weight and variance."""
        variance = (1 - s) ** 2 + s**2 * 0.01
        z = y[None] - s * CIRCLE
        w = scipy.special.softmax(-np.sum(z**2, axis=1) / (2 * variance))
        return w @ (CIRCLE + (s - 1 + 0.01 * s) / variance * z)

    for start, end in zip(np.asarray(x), mapped, strict=True):
        solution = scipy.integrate.solve_ivp(velocity, (0, 1), start, method="DOP853", rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(end, solution.y[:, -1], rtol=0, atol=1e-8)
    back = oracle.flow_map(jnp.ones(len(x)), jnp.zeros(len(x)), mapped)
    np.testing.assert_allclose(back, x, rtol=0, atol=1e-8)


def test_mixture_keeps_its_tails_in_float32():
    mixture = oracles.gaussian_mixture(WEIGHTS, MEANS, STDS)
    x = jnp.array([[-7.0], [7.0]])
    there = mixture.flow_map(jnp.zeros(2), jnp.ones(2), x)
    back = mixture.flow_map(jnp.ones(2), jnp.zeros(2), there)
    np.testing.assert_allclose(back, x, rtol=1e-4)


@pytest.mark.parametrize("means, stds, dim", MIXTURES)
def test_samples_of_a_mixture_have_the_moments(means, stds, dim):
    n = 160_000
    x = np.asarray(oracles.gaussian_mixture(WEIGHTS, means, stds).sample(jax.random.key(0), n))
    assert x.shape == (n, dim)
    means, stds = np.reshape(means, (-1, dim)), np.reshape(stds, (-1, dim))
    mean = WEIGHTS @ means
    cov = np.diag(WEIGHTS @ stds**2) + (means - mean).T @ np.diag(WEIGHTS) @ (means - mean)
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=4 * np.sqrt(cov.max() / n))
    np.testing.assert_allclose(np.cov(x.T).reshape(dim, dim), cov, atol=4 * cov.max() * np.sqrt(2 / n))


def test_samples_of_a_gaussian_have_the_moments():
    n = 40_000
    x = np.asarray(oracles.gaussian(MEAN, COV).sample(jax.random.key(0), n))
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=4 * np.sqrt(2 / n))
    np.testing.assert_allclose(np.cov(x.T), COV, atol=0.06)


@pytest.mark.parametrize("means, stds, dim", MIXTURES)
def test_equal_mixtures_have_equal_hashes(means, stds, dim):
    make = lambda: oracles.gaussian_mixture(np.array(WEIGHTS), np.array(means), np.array(stds))  # noqa: E731
    assert {make(): dim}[make()] == dim


@pytest.mark.parametrize(
    "make",
    [
        lambda: oracles.gaussian([0.0], [[1.0, 0.0], [0.0, 1.0]]),
        lambda: oracles.gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]),
        lambda: oracles.gaussian_mixture([1.0], [0.0, 1.0], [1.0, 1.0]),
        lambda: oracles.gaussian_mixture([1.0], [0.0], [-1.0]),
        lambda: oracles.labelled_mixture([1.0], CLASSES),
        lambda: oracles.labelled_mixture([1.0, 0.0], CLASSES),
        lambda: oracles.labelled_mixture([1.0, 1.0], [CLASSES[0], ([1.0], [0.0], [0.0])]),
        lambda: oracles.gaussian_mixture([1.0], [0.0], [float("nan")]),
        lambda: oracles.gaussian_mixture([0.0], [0.0], [1.0]),
        lambda: oracles.gaussian_mixture([], [], []),
        lambda: oracles.gaussian_mixture(1.0, 0.0, 1.0),
        lambda: oracles.gaussian_mixture([1.0], [0.0], [[1.0]]),
        lambda: oracles.gaussian_mixture([1.0, 1.0], CIRCLE[:3], [1.0, 1.0]),
        lambda: oracles.gaussian_mixture([1.0, 1.0], CIRCLE[:2], np.ones((2, 3))),
        lambda: oracles.gaussian_mixture([1.0, 1.0], CIRCLE[:2], np.zeros((2, 2))),
    ],
)
def test_bad_laws(make):
    with pytest.raises(InputError) as error:
        make()
    assert "\n" not in str(error.value) and ": " in str(error.value)
