"""What all oracles share."""

import abc
import functools

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import expand_time
from sgflow_jax.interpolant import Interpolant
from sgflow_jax.oracles import runge_kutta


class Oracle(abc.ABC):
    """Data with exactly known velocity and flow map. Times are [B], points [B, D], all float32 or all float64."""

    interpolant: Interpolant

    @abc.abstractmethod
    def velocity(self, t: jax.Array, x: jax.Array) -> jax.Array:
        """v(t, x) = E[dx_t | x_t = x], like x [B, D]."""

    @abc.abstractmethod
    def flow_map(self, t: jax.Array, u: jax.Array, x: jax.Array) -> jax.Array:
        """f(t, u, x), like x [B, D]."""

    @abc.abstractmethod
    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """n data points, [n, D]."""

    @property
    @abc.abstractmethod
    def narrowest(self) -> float:
        """The smallest standard deviation of the data, over axes and components."""

    @functools.partial(jax.jit, static_argnums=0)  # or the solver's loops would be compiled in every call
    def average_velocity(self, t: jax.Array, u: jax.Array, x: jax.Array) -> jax.Array:
        """F(t, u, x) = (f(t, u, x) - x) / (u - t), like x. On the diagonal it is v."""
        # Close to the diagonal the quotient cancels. Its derivatives have errors of eps / gap^2, those of a method of
        # order 8 have errors of gap^7. They are equal near gap = eps^(1/9), or closer for narrow distributions.
        near = jnp.abs(u - t) < jnp.finfo(x.dtype).eps ** (1 / 9) / 2

        far_u = jnp.where(near, t + 1, u)
        quotient = (self.flow_map(t, far_u, x) - x) / expand_time(far_u - t, x)

        return jnp.where(expand_time(near, x), self._solve(t, jnp.where(near, u, t), x, steps=8), quotient)

    def _solve(self, t, u, x, steps, velocity=None):
        """F(t, u, x) by the solver, of `self.velocity` or another one. The velocity changes fastest where x_t is
        narrow, so steps follow its width."""

        def width(t):
            return jnp.hypot(self.interpolant.alpha(t), self.interpolant.sigma(t) * self.narrowest)

        refine = jnp.sqrt(width(u) / width(t))
        return runge_kutta.average_velocity(velocity or self.velocity, t, u, x, steps, refine)
