"""The flow map f(t, u, x) = x + (u - t) F(t, u, x) and its derivatives. No other module calls `jax.jvp`.

A tangent (a, b, c) means the directional derivative a d/dt + b d/du + c . d/dx; a and b are [B], c is like x.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import Net, expand_time

Tangent = tuple[jax.Array, jax.Array, jax.Array]


def apply(net: Net, t, u, x: jax.Array) -> jax.Array:
    """f(t, u, x), like x [B, ...]. t and u are [B], or scalars for one jump of the whole batch."""
    t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
    u = jnp.broadcast_to(jnp.asarray(u, x.dtype), x.shape[:1])
    return x + expand_time(u - t, x) * net(t, u, x)


def backward_tangent(t: jax.Array, velocity: jax.Array) -> Tangent:
    """(1, 0, velocity): the direction in which the Eulerian derivative d_t f + (d_x f) velocity is taken."""
    return jnp.ones_like(t), jnp.zeros_like(t), velocity


def spatial_tangent(t: jax.Array, direction: jax.Array) -> Tangent:
    """(0, 0, direction): the direction in which (d_x f) direction is taken."""
    return jnp.zeros_like(t), jnp.zeros_like(t), direction


def forward_tangent(u: jax.Array, x: jax.Array) -> Tangent:
    """(0, 1, 0): the direction in which the Lagrangian derivative d_u f is taken."""
    return jnp.zeros_like(u), jnp.ones_like(u), jnp.zeros_like(x)


def derivative(net: Net, t: jax.Array, u: jax.Array, x: jax.Array, tangent: Tangent) -> jax.Array:
    """The derivative of f along one tangent, like x. Gradients pass through it."""
    return map_and_derivative(net, t, u, x, tangent)[1]


def map_and_derivative(
    net: Net, t: jax.Array, u: jax.Array, x: jax.Array, tangent: Tangent
) -> tuple[jax.Array, jax.Array]:
    """(f, derivative of f along the tangent), both like x."""
    return jax.jvp(lambda *point: apply(net, *point), (t, u, x), tangent)


def _linearized(f: Callable, point: Tangent, tangents: tuple[Tangent, ...]) -> tuple[jax.Array, ...]:
    _, linear = jax.linearize(f, *point)
    return tuple(linear(*tangent) for tangent in tangents)


def _vectorized(f: Callable, point: Tangent, tangents: tuple[Tangent, ...]) -> tuple[jax.Array, ...]:
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *tangents)
    return tuple(jax.vmap(lambda tangent: jax.jvp(f, point, tangent)[1])(stacked))


# Several tangents at one point, with one evaluation of the network. "linearize" is faster on CPU. "vmap", one jvp with
# stacked tangents, keeps half as much of a network with `remat` and recomputes less of it (docs/cost.md).
TANGENTS = {"linearize": _linearized, "vmap": _vectorized}


def derivatives(
    net: Net, t: jax.Array, u: jax.Array, x: jax.Array, *tangents: Tangent, how: str = "linearize"
) -> tuple[jax.Array, ...]:
    """The derivatives of f along several tangents, each like x. how: a key of TANGENTS."""
    return TANGENTS[how](lambda *point: apply(net, *point), (t, u, x), tangents)


def average_velocity_derivative(
    net: Net, t: jax.Array, u: jax.Array, x: jax.Array, tangent: Tangent, target: Net | None = None
) -> tuple[jax.Array, jax.Array]:
    """(F, derivative of F along the tangent), both like x. target: the network that is differentiated, if another."""
    if target is None or target is net:
        return jax.jvp(net, (t, u, x), tangent)
    return net(t, u, x), jax.jvp(target, (t, u, x), tangent)[1]


def detached(net: Net) -> Net:
    """The same network with gradients stopped at its parameters; they still pass to t, u and x."""

    def call(t, u, x):
        # Turns what `net` closes over into arguments, so that any kind of callable can be detached. The lambda is
        # needed because closure_convert takes hashable functions only.
        converted, parameters = jax.closure_convert(lambda *point: net(*point), t, u, x)
        return converted(t, u, x, *jax.lax.stop_gradient(parameters))

    return call
