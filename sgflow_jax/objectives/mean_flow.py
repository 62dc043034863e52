"""MeanFlow: regression of the average velocity on its own identity."""

import dataclasses

import jax
import jax.numpy as jnp

from sgflow_jax import flow_map
from sgflow_jax.interfaces import InputError, expand_time, squared_norm
from sgflow_jax.objectives.base import FlowMapObjective, no_teacher


@dataclasses.dataclass(frozen=True)
class MeanFlow(FlowMapObjective):
    """MeanFlow (Geng et al. 2025, Algorithm 1), in this project's direction of time.

        |F(t, u, x_t) - sg[dx_t + (u - t) (d_t F + (d_x F) dx_t)]|^2

    on t < u, and flow matching on t = u. The target follows from d_t f + (d_x f) v = 0 with f = x + (u - t) F; dx_t
    stands for v, to which it averages. No gradient passes through the derivative.

    adaptive_power: p of the paper's adaptive weight sg[1 / (|residual|^2 + adaptive_offset)^p], applied to diagonal
        and off-diagonal examples alike; 0 (default) is none, the paper uses 0.5 to 1. The weight depends on the
        noise of dx_t, so it moves the stationary point away from the true map wherever dx_t given x_t is not
        symmetric: use it to reproduce the paper, not to learn the exact map.
    adaptive_offset: c > 0, in units of |x|^2.
    """

    adaptive_power: float = 0.0
    adaptive_offset: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.adaptive_power < 0 or self.adaptive_offset <= 0:
            raise InputError(
                "adaptive_power must be 0 or more and adaptive_offset positive: correct the one that is not"
            )

    def weigh(self, squared_residual):
        if not self.adaptive_power:
            return squared_residual
        return squared_residual * jax.lax.stop_gradient(
            (squared_residual + self.adaptive_offset) ** -self.adaptive_power
        )

    def off_diagonal(self, net, t, u, x_t, dx_t, teacher):
        no_teacher(self, teacher)

        F, DF = flow_map.average_velocity_derivative(net, t, u, x_t, flow_map.backward_tangent(t, dx_t))

        target = jax.lax.stop_gradient(dx_t + expand_time(u - t, x_t) * DF)

        squared_residual = squared_norm(F - target)
        return squared_residual, {"residual_norm_sq": jnp.mean(squared_residual)}
