"""Data laws whose velocity and flow map are known exactly. They turn claims about objectives into tests.

An oracle has velocity(t, x), flow_map(t, u, x), average_velocity(t, u, x) (a `Net`) and sample(key, n). Times are [B],
points [B, D], in float32 or float64; derivatives with respect to t, u and x are exact.
"""

import abc
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

from sgflow_jax import interpolant
from sgflow_jax.interfaces import InputError, expand_time


class Oracle(abc.ABC):
    """What the exact laws share."""

    @abc.abstractmethod
    def velocity(self, t: jax.Array, x: jax.Array) -> jax.Array:
        """v(t, x) = E[dx_t | x_t = x], like x [B, D]."""

    @abc.abstractmethod
    def flow_map(self, t: jax.Array, u: jax.Array, x: jax.Array) -> jax.Array:
        """f(t, u, x), like x [B, D]."""

    @abc.abstractmethod
    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """n data points, [n, D]."""

    def average_velocity(self, t: jax.Array, u: jax.Array, x: jax.Array) -> jax.Array:
        """F(t, u, x) = (f(t, u, x) - x) / (u - t), like x, and v on the diagonal."""
        # Close to the diagonal the quotient cancels; there the midpoint rule, exact to (u - t)^2, takes over at the gap
        # where the two errors meet, eps^(1/3).
        gap = expand_time(u - t, x)
        near = jnp.abs(gap) < jnp.finfo(x.dtype).eps ** (1 / 3)

        safe_u = jnp.where(near.reshape(t.shape), t + 1, u)
        quotient = (self.flow_map(t, safe_u, x) - x) / jnp.where(near, 1, gap)

        midpoint = self.velocity((t + u) / 2, x + gap / 2 * self.velocity(t, x))

        return jnp.where(near, midpoint, quotient)


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian(Oracle):
    """Data N(mean, cov): mean [D], cov = axes diag(variances) axes^T.

    x_t is Gaussian with mean m_t = sigma_t m and covariance C_t = alpha_t^2 I + sigma_t^2 cov, and all C_t commute:
    v = m'_t + 1/2 C'_t C_t^-1 (x - m_t),   f(t, u, x) = m_u + C_u^(1/2) C_t^(-1/2) (x - m_t).
    """

    mean: np.ndarray
    variances: np.ndarray
    axes: np.ndarray
    path: interpolant.Interpolant

    def _spread(self, t):
        """The variances of x_t along the axes, [B, D]."""
        t = t[:, None]
        return self.path.alpha(t) ** 2 + self.path.sigma(t) ** 2 * self.variances.astype(t.dtype)[None]

    def _mean(self, t):
        return self.path.sigma(t)[:, None] * self.mean.astype(t.dtype)[None]

    def velocity(self, t, x):
        axes = self.axes.astype(x.dtype)
        half_dC = (self.path.alpha(t) * self.path.dalpha(t))[:, None] + (self.path.sigma(t) * self.path.dsigma(t))[
            :, None
        ] * self.variances.astype(x.dtype)[None]
        dm = self.path.dsigma(t)[:, None] * self.mean.astype(x.dtype)[None]

        return dm + ((x - self._mean(t)) @ axes * half_dC / self._spread(t)) @ axes.T

    def flow_map(self, t, u, x):
        axes = self.axes.astype(x.dtype)
        return self._mean(u) + ((x - self._mean(t)) @ axes * jnp.sqrt(self._spread(u) / self._spread(t))) @ axes.T

    def sample(self, key, n):
        z = jax.random.normal(key, (n, self.mean.size))
        scaled = z * jnp.sqrt(self.variances.astype(z.dtype))[None]
        return self.mean.astype(z.dtype)[None] + scaled @ self.axes.astype(z.dtype).T


@dataclasses.dataclass(frozen=True)
class GaussianMixture1D(Oracle):
    """Data on the line with density sum_k w_k N(m_k, s_k^2). Points are [B, 1].

    The flow map is the monotone transport between the marginals, CDF_u(f(t, u, x)) = CDF_t(x).
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]
    path: interpolant.Interpolant

    def _component(self, t):
        """log w_k [1, K], and mean and standard deviation of each component of x_t, [B, K]."""
        log_w, means, stds = (jnp.asarray(a, t.dtype)[None] for a in (np.log(self.weights), self.means, self.stds))
        t = t[:, None]
        return log_w, self.path.sigma(t) * means, jnp.sqrt(self.path.alpha(t) ** 2 + (self.path.sigma(t) * stds) ** 2)

    def _log(self, law, t, x):
        """log of sum_k w_k law((x - mean_k) / std_k), [B, 1]."""
        log_w, mean, std = self._component(t)
        return logsumexp(log_w + law(x, mean, std), axis=1, keepdims=True)

    def velocity(self, t, x):
        log_w, mean, std = self._component(t)
        posterior = jax.nn.softmax(log_w + norm.logpdf(x, mean, std), axis=1)

        t = t[:, None]
        dmean = self.path.dsigma(t) * jnp.asarray(self.means, x.dtype)[None]
        half_dC = self.path.alpha(t) * self.path.dalpha(t) + self.path.sigma(t) * self.path.dsigma(t) * (
            jnp.asarray(self.stds, x.dtype)[None] ** 2
        )
        v = dmean + half_dC / std**2 * (x - mean)

        return jnp.sum(posterior * v, axis=1, keepdims=True)

    def flow_map(self, t, u, x):
        return _transport(self, t, u, x)

    def sample(self, key, n):
        key_component, key_normal = jax.random.split(key)
        k = jax.random.choice(key_component, len(self.weights), (n,), p=jnp.asarray(self.weights))
        z = jax.random.normal(key_normal, (n,))
        return (jnp.asarray(self.means)[k] + jnp.asarray(self.stds)[k] * z)[:, None]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _transport(law: GaussianMixture1D, t, u, x):
    """Solves CDF_u(y) = CDF_t(x) for y by bisection, in logarithms and from the nearer tail."""
    log_cdf = law._log(norm.logcdf, t, x)
    log_sf = law._log(norm.logsf, t, x)
    lower = log_cdf < log_sf

    # A quantile of a mixture lies between the same quantiles of its components.
    _, mean_t, std_t = law._component(t)
    _, mean_u, std_u = law._component(u)
    reach = jnp.max(jnp.abs(x - mean_t) / std_t, axis=1, keepdims=True) * std_u
    low = jnp.min(mean_u - reach, axis=1, keepdims=True)
    high = jnp.max(mean_u + reach, axis=1, keepdims=True)

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


def gaussian(mean, cov, path: str = "linear") -> Gaussian:
    """The oracle of N(mean, cov): mean [D], cov [D, D] symmetric positive definite. path: see `interpolant.make`."""
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or cov.shape != (mean.size, mean.size) or not np.allclose(cov, cov.T):
        raise InputError(f"mean {mean.shape} and cov {cov.shape} do not match: use [D] and a symmetric [D, D]")
    variances, axes = np.linalg.eigh(cov)
    if variances[0] <= 0:
        raise InputError(f"cov has the eigenvalue {variances[0]}: use a positive definite matrix")
    return Gaussian(mean, variances, axes, interpolant.make(path))


def gaussian_mixture(weights, means, stds, path: str = "linear") -> GaussianMixture1D:
    """The oracle of sum_k weights[k] N(means[k], stds[k]^2) on the line, all [K]. path: see `interpolant.make`."""
    weights, means, stds = (np.asarray(a, np.float64) for a in (weights, means, stds))
    if weights.ndim != 1 or not weights.shape == means.shape == stds.shape:
        raise InputError(f"weights {weights.shape}, means {means.shape}, stds {stds.shape}: use three arrays [K]")
    if np.any(weights <= 0) or np.any(stds <= 0):
        raise InputError("a weight or a standard deviation is not positive: correct it")
    weights = weights / weights.sum()
    return GaussianMixture1D(tuple(weights), tuple(means), tuple(stds), interpolant.make(path))
