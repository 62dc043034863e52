"""The average velocity of an ODE by a Runge-Kutta method of order 8 (Dormand and Prince) with fixed steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import DOP853

from sgflow_jax.interfaces import expand_time

Velocity = Callable[[jax.Array, jax.Array], jax.Array]


def average_velocity(
    velocity: Velocity, t: jax.Array, u: jax.Array, x: jax.Array, steps: int, refine: jax.Array
) -> jax.Array:
    """F(t, u, x) for dx/ds = velocity(s, x), like x [B, ...], for t and u in either order. On the diagonal it is v.

    Solves for the average itself, so nothing cancels however small u - t is: x_s = x + (u - t) q with

        s = t + (u - t) theta(tau),   dq/dtau = theta'(tau) v(s, x + (u - t) q),   q = 0 at 0 and F at tau = 1.

    refine [B]: the last steps in s are about refine^2 times as long as the first, theta'(1) = refine^2 theta'(0).
    Computes in the precision of x. Forward-mode and reverse-mode derivatives pass through the steps.
    """
    dtype, gap = x.dtype, expand_time(u - t, x)
    A, B, C = (jnp.asarray(a, dtype) for a in (DOP853.A, DOP853.B, DOP853.C))

    def combine(weights, slopes):
        return jnp.tensordot(weights / steps, slopes, 1, precision="highest")

    @jax.checkpoint  # reverse mode keeps one array per step instead of one per stage
    def step(q, i):
        def stage(slopes, row):
            j, a, c = row
            tau = (i + c) / steps
            theta, dtheta = tau / (tau + (1 - tau) * refine), refine / (tau + (1 - tau) * refine) ** 2

            slope = expand_time(dtheta, x) * velocity(t + (u - t) * theta, x + gap * (q + combine(a, slopes)))

            return slopes.at[j].set(slope), None

        slopes, _ = jax.lax.scan(stage, jnp.zeros((len(C), *x.shape), dtype), (np.arange(len(C)), A, C))
        return q + combine(B, slopes), None

    return jax.lax.scan(step, jnp.zeros_like(x), jnp.arange(steps, dtype=dtype))[0]
