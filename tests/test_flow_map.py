import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax import flow_map


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


def test_apply_takes_one_jump_for_the_whole_batch(x64):
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

    both = flow_map.derivatives(_net, t, u, x, eulerian, spatial)
    np.testing.assert_allclose(both[0], d_t + d_x * direction)
    np.testing.assert_allclose(both[1], d_x * direction)

    F, dF = flow_map.average_velocity_derivative(_net, t, u, x, eulerian)
    np.testing.assert_allclose(F, T[:, None] ** 2 * X**2 + U[:, None])
    np.testing.assert_allclose(dF, 2 * T[:, None] * X**2 + T[:, None] ** 2 * 2 * X * direction)


def test_gradients_pass_through_derivatives(x64):
    t, u, x = map(jnp.asarray, (T, U, X))

    def squared(scale):
        net = lambda t, u, x: scale * _net(t, u, x)  # noqa: E731
        return jnp.sum(flow_map.derivatives(net, t, u, x, flow_map.backward_tangent(t, x))[0] ** 2)

    h = 1e-6
    np.testing.assert_allclose(jax.grad(squared)(1.0), (squared(1 + h) - squared(1 - h)) / (2 * h), rtol=1e-8)
