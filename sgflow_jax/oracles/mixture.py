"""Mixtures of Gaussians. The velocity has a closed form in any dimension, the flow map only on the line."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

from sgflow_jax.interfaces import expand_time
from sgflow_jax.interpolant import Interpolant
from sgflow_jax.oracles.base import Oracle


@dataclasses.dataclass(frozen=True)
class GaussianMixture(Oracle):
    """Data with density sum_k w_k N(m_k, diag(s_k^2)): weights [K], means and stds [K, D].

    The components of x_t are the Gaussians of mean sigma_t m_k and variances C_k = alpha_t^2 + sigma_t^2 s_k^2, and

        v(t, x) = sum_k P(k | x_t = x) v_k(t, x),   v_k = sigma'_t m_k + 1/2 C'_k / C_k (x - sigma_t m_k).

    The flow map solves dx/ds = v numerically, to about 1e-8 or better in float64.
    """

    weights: tuple[float, ...]
    means: tuple
    stds: tuple
    interpolant: Interpolant

    def _arrays(self, dtype):
        """log w_k [1, K], m_k and s_k [1, K, D]."""
        shape = (1, len(self.weights), -1)
        arrays = np.log(self.weights)[None], np.reshape(self.means, shape), np.reshape(self.stds, shape)
        return tuple(jnp.asarray(a, dtype) for a in arrays)

    def _component(self, t):
        """log w_k [1, K], and the means and standard deviations of the components of x_t, [B, K, D]."""
        log_w, means, stds = self._arrays(t.dtype)
        t = t[:, None, None]
        return (
            log_w,
            self.interpolant.sigma(t) * means,
            jnp.sqrt(self.interpolant.alpha(t) ** 2 + (self.interpolant.sigma(t) * stds) ** 2),
        )

    @property
    def narrowest(self):
        return float(np.min(self.stds))

    def density(self, x: jax.Array) -> jax.Array:
        """The density of the data: points [B, D] -> [B]."""
        log_w, means, stds = self._arrays(x.dtype)
        return jnp.exp(logsumexp(log_w + jnp.sum(norm.logpdf(x[:, None], means, stds), axis=2), axis=1))

    def velocity(self, t, x, among=None):
        """among: [B, K], the components that each point may come from; all by default."""
        x = x[:, None]
        log_w, mean, std = self._component(t)
        posterior = jax.nn.softmax(log_w + jnp.sum(norm.logpdf(x, mean, std), axis=2), axis=1, where=among)

        _, means, stds = self._arrays(x.dtype)
        t = t[:, None, None]
        half_dC = (
            self.interpolant.alpha(t) * self.interpolant.dalpha(t)
            + self.interpolant.sigma(t) * self.interpolant.dsigma(t) * stds**2
        )
        v = self.interpolant.dsigma(t) * means + half_dC / std**2 * (x - mean)

        return jnp.sum(posterior[:, :, None] * v, axis=1)

    @property
    def steps(self) -> int:
        """Steps of the solver from noise to data."""
        # Narrow components need few more steps. Components far apart separate early, where steps are long.
        extent = np.linalg.norm(np.ptp(np.reshape(self.means, (len(self.weights), -1)), axis=0))
        return math.ceil(48 + 4 * extent + 8 * math.log2(1 / min(self.narrowest, 1)))

    @functools.partial(jax.jit, static_argnums=0)
    def average_velocity(self, t, u, x):
        return self._solve(t, u, x, self.steps)

    def flow_map(self, t, u, x):
        return x + expand_time(u - t, x) * self.average_velocity(t, u, x)

    def sample(self, key, n):
        return self.sample_with_component(key, n)[0]

    def sample_with_component(self, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        """n data points [n, D], and the number of the component of each [n]."""
        key_component, key_normal = jax.random.split(key)
        k = jax.random.choice(key_component, len(self.weights), (n,), p=jnp.asarray(self.weights))
        _, means, stds = (a[0] for a in self._arrays(jnp.result_type(float)))
        return means[k] + stds[k] * jax.random.normal(key_normal, (n, means.shape[1])), k


@dataclasses.dataclass(frozen=True)
class GaussianMixture1D(GaussianMixture):
    """Data on the line with density sum_k w_k N(m_k, s_k^2): weights, means and stds [K]. Points are [B, 1].

    The flow map is the monotone transport between the marginals, CDF_u(f(t, u, x)) = CDF_t(x).
    """

    average_velocity = Oracle.average_velocity  # from the closed form of the map

    @functools.partial(jax.jit, static_argnums=0)
    def flow_map(self, t, u, x):
        return _transport(self, t, u, x)

    def _log(self, log_function, t, x):
        """log sum_k w_k exp(log_function(x, mean_k, std_k)), [B, 1]."""
        log_w, mean, std = self._component(t)
        return logsumexp(log_w + log_function(x, mean[:, :, 0], std[:, :, 0]), axis=1, keepdims=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _transport(law: GaussianMixture1D, t, u, x):
    """Solves CDF_u(y) = CDF_t(x) for y by bisection, with logarithms from the nearer tail."""
    log_cdf = law._log(norm.logcdf, t, x)
    log_sf = law._log(norm.logsf, t, x)
    lower = log_cdf < log_sf

    # A quantile of a mixture lies between the same quantiles of its components.
    _, mean_t, std_t = law._component(t)
    _, mean_u, std_u = law._component(u)
    reach = jnp.max(jnp.abs(x[:, None] - mean_t) / std_t, axis=1, keepdims=True) * std_u
    low = jnp.min(mean_u - reach, axis=1)
    high = jnp.max(mean_u + reach, axis=1)

    def halve(_, bracket):
        low, high = bracket
        y = (low + high) / 2
        excess = jnp.where(lower, law._log(norm.logcdf, u, y) - log_cdf, log_sf - law._log(norm.logsf, u, y))
        return jnp.where(excess < 0, y, low), jnp.where(excess < 0, high, y)

    low, high = jax.lax.fori_loop(0, jnp.finfo(x.dtype).nmant + 8, halve, (low, high))
    return (low + high) / 2


@_transport.defjvp
def _transport_jvp(law, point, tangent):
    # Differentiate CDF_u(f) = CDF_t(x), with density p_t = d_x CDF_t and, by continuity, d_t CDF_t = -p_t v:
    # p_u(f) (df - v(u, f) du) = p_t(x) (dx - v(t, x) dt).
    t, u, x = point
    dt, du, dx = tangent

    f = _transport(law, t, u, x)

    ratio = jnp.exp(law._log(norm.logpdf, t, x) - law._log(norm.logpdf, u, f))

    return f, ratio * (dx - law.velocity(t, x) * dt[:, None]) + law.velocity(u, f) * du[:, None]
