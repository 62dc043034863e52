"""Gaussian data: velocity and flow map are affine in x."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax.interpolant import Interpolant
from sgflow_jax.oracles.base import Oracle


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian(Oracle):
    """Data N(mean, cov): mean [D], cov = axes diag(variances) axes^T.

    x_t is Gaussian with mean m_t = sigma_t m and covariance C_t = alpha_t^2 I + sigma_t^2 cov, and all C_t commute:
    v = m'_t + 1/2 C'_t C_t^-1 (x - m_t),   f(t, u, x) = m_u + C_u^(1/2) C_t^(-1/2) (x - m_t).
    """

    mean: np.ndarray
    variances: np.ndarray
    axes: np.ndarray
    interpolant: Interpolant

    @property
    def narrowest(self):
        return float(np.sqrt(self.variances.min()))

    def _spread(self, t):
        """The variances of x_t along the axes, [B, D]."""
        t = t[:, None]
        return self.interpolant.alpha(t) ** 2 + self.interpolant.sigma(t) ** 2 * self.variances.astype(t.dtype)[None]

    def _mean(self, t):
        return self.interpolant.sigma(t)[:, None] * self.mean.astype(t.dtype)[None]

    def _scale(self, x, factor):
        """x scaled by factor [B, D] along the axes."""
        axes = self.axes.astype(x.dtype)
        # By default, accelerators round the inputs of float32 matrix products.
        along = jnp.matmul(x, axes, precision="highest")
        return jnp.matmul(along * factor, axes.T, precision="highest")

    def velocity(self, t, x):
        alpha, sigma, dalpha, dsigma = (
            schedule(t)[:, None]
            for schedule in (
                self.interpolant.alpha,
                self.interpolant.sigma,
                self.interpolant.dalpha,
                self.interpolant.dsigma,
            )
        )
        half_dC = alpha * dalpha + sigma * dsigma * self.variances.astype(x.dtype)[None]

        return dsigma * self.mean.astype(x.dtype)[None] + self._scale(x - self._mean(t), half_dC / self._spread(t))

    def flow_map(self, t, u, x):
        return self._mean(u) + self._scale(x - self._mean(t), jnp.sqrt(self._spread(u) / self._spread(t)))

    def sample(self, key, n):
        z = jax.random.normal(key, (n, self.mean.size))
        return self.mean.astype(z.dtype)[None] + self._scale(z, jnp.sqrt(self.variances.astype(z.dtype))[None])
