"""The velocity of a network that was trained as a denoiser with EDM's preconditioning (Karras et al. 2022, Table 1)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import expand_time

SIGMA_DATA = 0.5  # standard deviation of the data that EDM assumes
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # noise levels that EDM samples with (Karras et al. 2022, Table 1)


def velocity(net: Callable[[jax.Array, jax.Array], jax.Array], t: jax.Array, x: jax.Array) -> jax.Array:
    """v(t, x) on the linear path of `interpolant`: t [B], x [B, ...] -> like x.

    net: the network inside the denoiser, of its scaled input [B, ...] and log(sigma) / 4 [B].

    EDM's noisy example is y = x1 + sigma x0. With d = SIGMA_DATA its denoiser is

        D(y, sigma) = c_skip y + c_out net(c_in y, log(sigma) / 4)
        c_skip = d^2 / (sigma^2 + d^2)
        c_out = sigma d / sqrt(sigma^2 + d^2)
        c_in = 1 / sqrt(sigma^2 + d^2)

    A point x = (1 - t) x0 + t x1 of the linear path is t y for

        y = x / t
        sigma = (1 - t) / t

    Let s^2 = (1 - t)^2 + d^2 t^2, which is never 0. Then

        sigma^2 + d^2 = s^2 / t^2
        c_skip y = d^2 t x / s^2
        c_out = (1 - t) d / s
        c_in y = x / s

    The velocity is E[x1 - x0 | x], where x0 = (x - t x1) / (1 - t) and E[x1 | x] = D:

        v = (D - x) / (1 - t)
        D - x = (d^2 t - s^2) x / s^2 + (1 - t) d net / s
        d^2 t - s^2 = (1 - t) (d^2 t - (1 - t))
        v = (d^2 t - (1 - t)) x / s^2 + d net / s

    Nothing is divided by t or 1 - t. Only the noise level that the network is told has no bound at the ends: there it
    stays at SIGMA_MAX or SIGMA_MIN. It is exact for t from 0.0123 to 0.998; beyond, its derivative in t is 0.
    """
    # Limits of t, not of sigma: the derivative of sigma at t = 0 would be infinite, and that of the limited one NaN.
    inside = jnp.clip(t, 1 / (1 + SIGMA_MAX), 1 / (1 + SIGMA_MIN))
    noise = jnp.log((1 - inside) / inside) / 4

    t = expand_time(t, x)
    s_squared = (1 - t) ** 2 + SIGMA_DATA**2 * t**2
    s = jnp.sqrt(s_squared)
    return (SIGMA_DATA**2 * t - (1 - t)) / s_squared * x + SIGMA_DATA / s * net(x / s, noise)
