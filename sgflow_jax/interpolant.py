"""The time convention, declared once for the whole project.

Time runs from noise to data: x0 ~ N(0, I) at t = 0, data x1 at t = 1, and 0 <= t <= u <= 1.

    x_t  = alpha_t  x0 + sigma_t  x1        the interpolant
    dx_t = alpha'_t x0 + sigma'_t x1        the velocity of the pair (x0, x1)
    v(t, x) = E[dx_t | x_t = x]             the marginal velocity

The flow map f(t, u, x) carries x from time t to time u along dx/ds = v(s, x). The network is the average
velocity F(t, u, x), so that f(t, u, x) = x + (u - t) F(t, u, x) and F(t, t, x) = v(t, x).

Other codebases run time the other way (MeanFlow, EDM): signs flip in a formula copied from them.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError, expand_time

Schedule = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Interpolant:
    """The path from noise to data. Each schedule maps t [B] to [B]; alpha_0 = sigma_1 = 1, alpha_1 = sigma_0 = 0."""

    alpha: Schedule
    sigma: Schedule
    dalpha: Schedule
    dsigma: Schedule

    def sample(self, t: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(x_t, dx_t) for t [B], noise x0 [B, ...] and data x1 [B, ...]; both are like x1."""
        t = expand_time(t, x1)

        x_t = self.alpha(t) * x0 + self.sigma(t) * x1

        dx_t = self.dalpha(t) * x0 + self.dsigma(t) * x1

        return x_t, dx_t

    def mean_velocity(
        self, t: jax.Array, x0: jax.Array, x1: jax.Array, data: jax.Array, alike: jax.Array | None = None
    ) -> jax.Array:
        """E[dx_t | x_t, data], like x1 [b, ...]: the mean of dx_t when x1 is one of data [B, ...], all equally likely.

        alike: [b, B], which data each may be; all by default. x1 must be among them. Given x_t alone, data[j] made it
        with probability w_j ~ exp(-|x_t - sigma_t data[j]|^2 / (2 alpha_t^2)) (the stable target field of Xu et al.
        2023, arXiv 2302.00670). For independent data the mean of the result given x_t is v(t, x_t), as for dx_t, and
        its variance is smaller (Rao-Blackwell).
        """
        x_t, dx_t = self.sample(t, x0, x1)
        # At t = 1, x_t is the datum itself and alpha is 0: keep it from dividing 0 by 0.
        alpha, sigma = jnp.maximum(self.alpha(t), jnp.finfo(t.dtype).eps), self.sigma(t)

        def mean_data(x_t, alpha, sigma, alike):
            square = jnp.sum((x_t[None] - sigma * data) ** 2, axis=tuple(range(1, data.ndim)))
            w = jax.nn.softmax(-square / (2 * alpha**2), where=alike)
            return jnp.tensordot(w, data, axes=1, precision="highest")

        # dx_t is linear in x1 at fixed x_t: alpha' (x_t - sigma x1) / alpha + sigma' x1.
        slope = self.dsigma(t) - self.dalpha(t) * sigma / alpha
        return dx_t + expand_time(slope, x1) * (jax.vmap(mean_data)(x_t, alpha, sigma, alike) - x1)


_INTERPOLANTS = {
    "linear": Interpolant(
        alpha=lambda t: 1 - t,
        sigma=lambda t: t,
        dalpha=lambda t: -jnp.ones_like(t),
        dsigma=jnp.ones_like,
    ),
    "trigonometric": Interpolant(
        alpha=lambda t: jnp.cos(jnp.pi / 2 * t),
        sigma=lambda t: jnp.sin(jnp.pi / 2 * t),
        dalpha=lambda t: -jnp.pi / 2 * jnp.sin(jnp.pi / 2 * t),
        dsigma=lambda t: jnp.pi / 2 * jnp.cos(jnp.pi / 2 * t),
    ),
}


def make(name: str) -> Interpolant:
    """The interpolant called `name`. InputError, with the known names, for another."""
    if name not in _INTERPOLANTS:
        raise InputError(f"unknown interpolant {name!r}: use one of {', '.join(_INTERPOLANTS)}")
    return _INTERPOLANTS[name]
