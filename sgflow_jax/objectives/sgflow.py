"""SGFlow: the Eulerian residual along the pair's own velocity, corrected for that velocity's noise."""

import dataclasses

import jax
import jax.numpy as jnp

from sgflow_jax import flow_map
from sgflow_jax.interfaces import InputError, expand_time, inner, squared_norm
from sgflow_jax.objectives.base import velocity
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss

ESTIMATORS = ("paired", "split")


@dataclasses.dataclass(frozen=True)
class SGFlow(FlowMapObjective):
    """SGFlow (Goldstein et al., ICLR 2026, Theorem 1).

        |D f|^2 - |(d_x f) e|^2,   D f = d_t f + (d_x f) dx_t,   e = dx_t - vhat,   vhat = sg[F(t, t, x_t)]

    on t < u, and flow matching on t = u. With mass on both, the only stationary point is the true flow map: once vhat
    is the marginal velocity, e has mean zero given x_t, and the expectation becomes |d_t f + (d_x f) v|^2. Gradients
    pass through the derivatives of f, not through vhat, which a teacher's velocity may replace. The value may be
    negative and does not measure progress. With R = d_t f + (d_x f) vhat the difference of squares factors into

        |R|^2 + 2 lam <R, (d_x f) e>,   lam = 1,

    and once the diagonal is fitted the true map is stationary for every lam; see `correction`.

    estimator:
        "paired": both terms on every example. Two tangents at one point. The same value and gradient as the first
            formula, and more accurate in float32.
        "split" (the paper): each example takes one of the two terms of |R + lam (d_x f) e|^2 - |lam (d_x f) e|^2, with
            weight 2 and its sign. One tangent; the same expectation, several times the variance. R is not computed; the
            metrics are the two terms, eulerian_norm_sq and noise_norm_sq.
    correction: lam, 1 in the paper. The noise of e enters times lam, and an error of vhat enters at first order times
        1 - lam. 0 is ESD with stopgrad "convex".
    final_correction, correction_steps: with correction_steps > 0, lam changes linearly from correction to
        final_correction over that many training steps.
    tangents: how "paired" takes its two derivatives, a key of `flow_map.TANGENTS`: the same numbers at a different
        cost.
    """

    estimator: str = "paired"
    correction: float = 1.0
    final_correction: float = 0.0
    correction_steps: int = 0
    tangents: str = "linearize"

    takes_teacher = True
    has_targets = True
    weights = ("none", "residual")  # a learned weight needs a loss that is not negative

    def __post_init__(self):
        super().__post_init__()
        self._one_of("estimator", ESTIMATORS)
        self._one_of("tangents", tuple(flow_map.TANGENTS))
        if self.estimator == "split" and self.weight == "residual":
            raise InputError("estimator 'split' does not compute the residual: use weight 'none', or 'paired'")
        if self.correction_steps < 0:
            raise InputError(f"correction_steps is {self.correction_steps}: use 0 (constant) or more")

    @property
    def batch_multiple(self) -> int:
        strata = self.make_strata()
        off = strata.group - strata.diagonal
        # Both terms must get the same number of examples.
        return strata.group * (2 if self.estimator == "split" and off % 2 else 1)

    def lam(self, step) -> jax.Array:
        """The weight of the correction at a training step."""
        if not self.correction_steps:
            return jnp.float32(self.correction)
        share = jnp.clip(jnp.asarray(step, jnp.float32) / self.correction_steps, 0, 1)
        return self.correction + share * (self.final_correction - self.correction)

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        vhat = jax.lax.stop_gradient(velocity(self.target_net(net), teacher, t, x_t))
        e = examples.dx_t - vhat
        lam = self.lam(examples.step).astype(x_t.dtype)
        estimator = self._paired if self.estimator == "paired" else self._split
        return estimator(net, t, u, x_t, vhat, e, lam)

    def _paired(self, net, t, u, x_t, vhat, e, lam):
        along, across = flow_map.backward_tangent(t, vhat), flow_map.spatial_tangent(t, e)

        if self.correction == 0 and not self.correction_steps:
            return OffDiagonalLoss.square(flow_map.derivative(net, t, u, x_t, along))

        R, Je = flow_map.derivatives(net, t, u, x_t, along, across, how=self.tangents)

        return OffDiagonalLoss(squared_norm(R) + 2 * lam * inner(R, Je), R)

    def _split(self, net, t, u, x_t, vhat, e, lam):
        if len(t) % 2:
            raise InputError(f"estimator 'split' got {len(t)} off-diagonal examples: use a batch with an even number")

        # Even examples take |R + lam (d_x f) e|^2, odd ones -|lam (d_x f) e|^2.
        even = (jnp.arange(len(t)) % 2 == 0).astype(t.dtype)
        direction = lam * e + expand_time(even, e) * vhat
        squares = squared_norm(flow_map.derivative(net, t, u, x_t, (even, jnp.zeros_like(even), direction)))

        terms = {"eulerian_norm_sq": 2 * jnp.mean(even * squares), "noise_norm_sq": 2 * jnp.mean((1 - even) * squares)}
        return OffDiagonalLoss(2 * (2 * even - 1) * squares, metrics=terms)
