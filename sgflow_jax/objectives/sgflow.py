"""SGFlow: the Eulerian residual along the pair's own velocity, corrected for that velocity's noise."""

import dataclasses

import jax.numpy as jnp

from sgflow_jax import flow_map
from sgflow_jax.interfaces import InputError, expand_time, inner, squared_norm
from sgflow_jax.objectives.base import FlowMapObjective, velocity

ESTIMATORS = ("paired", "split")


@dataclasses.dataclass(frozen=True)
class SGFlow(FlowMapObjective):
    """SGFlow (Goldstein et al., ICLR 2026, Theorem 1).

        |D f|^2 - |(d_x f) e|^2,   D f = d_t f + (d_x f) dx_t,   e = dx_t - vhat,   vhat = sg[F(t, t, x_t)]

    on t < u, and flow matching on t = u. With mass on both, the only stationary point is the true flow map: given x_t,
    e has mean zero once vhat is the marginal velocity, and the expectation becomes |d_t f + (d_x f) v|^2. Gradients
    pass through the derivatives of f, not through vhat. The value may be negative and is no measure of progress.

    estimator:
        "paired": both terms on every example, as the difference of squares factors,
            |R|^2 + 2 <R, (d_x f) e>,   R = d_t f + (d_x f) vhat.
            Two tangents at one point; the same value and gradient as the formula above, and more exact in float32.
        "split" (the paper): each example takes one of the two terms, with weight 2 and its sign. One tangent; the
            same expectation, several times the variance. R is not computed: the metrics are its two terms,
            eulerian_norm_sq = |D f|^2 and noise_norm_sq = |(d_x f) e|^2.
    """

    estimator: str = "paired"

    def __post_init__(self):
        super().__post_init__()
        if self.estimator not in ESTIMATORS:
            raise InputError(f"unknown estimator {self.estimator!r}: use one of {', '.join(ESTIMATORS)}")

    @property
    def batch_multiple(self) -> int:
        strata = self.make_strata()
        off = strata.group - strata.diagonal
        # Both terms must take the same number of examples.
        return strata.group * (2 if self.estimator == "split" and off % 2 else 1)

    def off_diagonal(self, net, t, u, x_t, dx_t, teacher):
        estimator = self._paired if self.estimator == "paired" else self._split
        return estimator(net, t, u, x_t, dx_t, teacher)

    def _paired(self, net, t, u, x_t, dx_t, teacher):
        vhat = velocity(net, teacher, t, x_t)
        e = dx_t - vhat

        R, Je = flow_map.derivatives(net, t, u, x_t, flow_map.backward_tangent(t, vhat), flow_map.spatial_tangent(t, e))

        loss = squared_norm(R) + 2 * inner(R, Je)

        return loss, {"residual_norm_sq": jnp.mean(squared_norm(R))}

    def _split(self, net, t, u, x_t, dx_t, teacher):
        if t.shape[0] % 2:
            raise InputError(
                f"estimator 'split' got {t.shape[0]} off-diagonal examples: use a batch with an even number"
            )

        # vhat is evaluated on all examples although half of them need it: dropout then has the mask of the derivative.
        e = dx_t - velocity(net, teacher, t, x_t)

        # Even examples take |D f|^2, odd examples -|(d_x f) e|^2.
        even = (jnp.arange(t.shape[0]) % 2 == 0).astype(t.dtype)
        sign = 2 * even - 1
        direction = jnp.where(expand_time(even, x_t) == 1, dx_t, e)
        Df_or_Je = flow_map.derivative(net, t, u, x_t, (even, jnp.zeros_like(t), direction))

        squares = squared_norm(Df_or_Je)
        terms = {"eulerian_norm_sq": 2 * jnp.mean(even * squares), "noise_norm_sq": 2 * jnp.mean((1 - even) * squares)}
        return 2 * sign * squares, terms
