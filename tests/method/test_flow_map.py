import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import flow_map
from tests.method.test_models import MLP, bound


def _net(t, u, x):
    """F with every derivative by hand: F_i = t^2 x_i^2 + u."""
    return (t**2)[:, None] * x**2 + u[:, None]


T, U = np.array([0.25, 0.5]), np.array([0.5, 0.75])
X = np.array([[1.0, -2.0], [3.0, 0.5]])


def test_apply_by_hand(x64):
    t, u, x = map(jnp.asarray, (T, U, X))
    expected = X + (U - T)[:, None] * (T[:, None] ** 2 * X**2 + U[:, None])
    np.testing.assert_allclose(flow_map.apply(_net, t, u, x), expected)
    np.testing.assert_allclose(flow_map.apply(_net, t, t, x), X)


def test_apply_accepts_one_jump_for_the_whole_batch(x64):
    np.testing.assert_allclose(
        flow_map.apply(_net, 0.25, 0.5, jnp.asarray(X)),
        flow_map.apply(_net, jnp.full(2, 0.25), jnp.full(2, 0.5), jnp.asarray(X)),
    )


def test_derivatives_by_hand(x64):
    t, u, x = map(jnp.asarray, (T, U, X))
    direction = jnp.array([[1.0, 2.0], [-1.0, 0.5]])
    gap = (U - T)[:, None]
    d_t = -(T[:, None] ** 2 * X**2 + U[:, None]) + gap * 2 * T[:, None] * X**2
    d_x = 1 + gap * T[:, None] ** 2 * 2 * X

    eulerian = flow_map.backward_tangent(t, direction)
    spatial = flow_map.spatial_tangent(t, direction)
    np.testing.assert_allclose(flow_map.derivative(_net, t, u, x, eulerian), d_t + d_x * direction)

    for how in flow_map.TANGENTS:
        both = flow_map.derivatives(_net, t, u, x, eulerian, spatial, how=how)
        np.testing.assert_allclose(both[0], d_t + d_x * direction)
        np.testing.assert_allclose(both[1], d_x * direction)

    f, d_u_f = flow_map.map_and_derivative(_net, t, u, x, flow_map.forward_tangent(u, x))
    F_by_hand = T[:, None] ** 2 * X**2 + U[:, None]
    np.testing.assert_allclose(f, X + gap * F_by_hand)
    np.testing.assert_allclose(d_u_f, F_by_hand + gap)

    F, dF = flow_map.average_velocity_derivative(_net, t, u, x, eulerian)
    np.testing.assert_allclose(F, F_by_hand)
    np.testing.assert_allclose(dF, 2 * T[:, None] * X**2 + T[:, None] ** 2 * 2 * X * direction)


def test_gradients_pass_through_derivatives(x64):
    t, u, x = map(jnp.asarray, (T, U, X))

    def squared(scale):
        net = lambda t, u, x: scale * _net(t, u, x)  # noqa: E731
        return jnp.sum(flow_map.derivatives(net, t, u, x, flow_map.backward_tangent(t, x))[0] ** 2)

    h = 1e-6
    np.testing.assert_allclose(jax.grad(squared)(1.0), (squared(1 + h) - squared(1 - h)) / (2 * h), rtol=1e-8)


def _closure(p):
    return lambda t, u, x: p["a"] * x**2 + jnp.sin(p["b"] * x) + (p["a"] * t + u)[:, None]


def _mlp():
    return bound("mlp", MLP, (2,))


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("kind", ["closure", "BoundNet"])
def test_detached_stops_the_gradient_only_at_the_parameters(kind, jit):
    """It passes through t, u and x, even where these depend on the parameters."""
    t, u, x = (jnp.asarray(a, jnp.float32) for a in (T, U, X))
    params = {"a": jnp.float32(0.7), "b": jnp.float32(-1.5)} if kind == "closure" else _mlp().params
    make = _closure if kind == "closure" else lambda params: _mlp().replace(params=params)

    def loss(net, params, t, u, x):
        """A call whose input comes from another call, and its derivative."""
        y = x + make(params)(t, u, x)
        f, Df = flow_map.map_and_derivative(net, t, u, y, flow_map.backward_tangent(t, y))
        return jnp.sum(f**2 + Df)

    def got(params, t, u, x):
        return loss(flow_map.detached(make(params)), params, t, u, x)

    def expected(params, t, u, x):
        return loss(make(frozen), params, t, u, x)

    frozen = params
    both = [jax.value_and_grad(function, argnums=(0, 1, 2, 3)) for function in (got, expected)]
    left, right = (jax.jit(function)(params, t, u, x) if jit else function(params, t, u, x) for function in both)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), left, right)

    whole = jax.grad(lambda p: loss(make(p), p, t, u, x))(params)
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(left[1][0]), jax.tree.leaves(whole), strict=True))
    alone = jax.grad(lambda p: jnp.sum(flow_map.detached(make(p))(t, u, x)))(params)
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), alone)
