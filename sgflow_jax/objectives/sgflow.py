"""SGFlow: the Eulerian residual along the pair's own velocity, corrected for that velocity's noise."""

import dataclasses

import jax.numpy as jnp

from sgflow_jax import flow_map
from sgflow_jax.interfaces import InputError, inner, restrict, squared_norm
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
            same expectation, several times the variance.
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

        # Even examples take |D f|^2, odd examples -|(d_x f) e|^2; only the odd ones need vhat.
        odd = slice(1, None, 2)
        odd_net = restrict(net, lambda a: a[odd])
        odd_teacher = restrict(teacher, lambda a: a[odd])
        e = dx_t[odd] - velocity(odd_net, odd_teacher, t[odd], x_t[odd])

        term = jnp.arange(t.shape[0]) % 2
        a = (1 - term).astype(t.dtype)
        c = dx_t.at[odd].set(e)
        Df_or_Je = flow_map.derivative(net, t, u, x_t, (a, jnp.zeros_like(t), c))

        squares = squared_norm(Df_or_Je)
        sign = 1 - 2 * term.astype(t.dtype)
        return 2 * sign * squares, {"residual_norm_sq": 2 * jnp.mean(sign * squares)}
