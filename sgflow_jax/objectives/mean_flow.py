"""MeanFlow and improved MeanFlow: regression of the average velocity on its own identity.

Both start from d_t f + (d_x f) v = 0, which with f = x + (u - t) F reads F = v + (u - t) (d_t F + (d_x F) v), and let
no gradient pass through the derivative.
"""

import dataclasses

import jax

from sgflow_jax import flow_map
from sgflow_jax.interfaces import expand_time, squared_norm
from sgflow_jax.objectives.base import FlowMapObjective, Terms, velocity

sg = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class MeanFlow(FlowMapObjective):
    """MeanFlow (Geng et al. 2025, arXiv 2505.13447, Algorithm 1), in this project's direction of time.

        |F - sg[dx_t + (u - t) (d_t F + (d_x F) dx_t)]|^2,   F = F(t, u, x_t)

    on t < u, and flow matching on t = u. dx_t stands for v, to which it averages; a teacher's velocity takes its place.
    The paper has weight "adaptive" with power 0.5 to 1; it is off here, as it moves the stationary point away from the
    true map wherever dx_t given x_t is not symmetric.
    """

    weight_offset: float = 1e-3

    weights = ("none", "adaptive")
    takes_teacher = True
    regression = True

    def off_diagonal(self, net, at, teacher):
        v = at.dx_t if teacher is None else velocity(net, teacher, at.t, at.x_t)

        F, DF = flow_map.average_velocity_derivative(net, at.t, at.u, at.x_t, flow_map.backward_tangent(at.t, v))

        target = v + expand_time(at.u - at.t, at.x_t) * DF

        return Terms(squared_norm(F - sg(target)))


@dataclasses.dataclass(frozen=True)
class ImprovedMeanFlow(FlowMapObjective):
    """Improved MeanFlow (Geng et al. 2025, arXiv 2512.02012), in this project's direction of time.

        |F - (u - t) sg[d_t F + (d_x F) vhat] - dx_t|^2,   vhat = sg[F(t, t, x_t)]

    on t < u, and flow matching on t = u. The derivative is along the model's own velocity, or a teacher's, so the noise
    of dx_t enters the target alone and R = F - (u - t) (d_t F + (d_x F) vhat) - vhat is free of it. The adaptive weight
    of the paper has weight_offset 1e-3.
    """

    weights = ("none", "residual", "adaptive")
    takes_teacher = True
    regression = True

    def off_diagonal(self, net, at, teacher):
        vhat = sg(velocity(net, teacher, at.t, at.x_t))

        F, DF = flow_map.average_velocity_derivative(net, at.t, at.u, at.x_t, flow_map.backward_tangent(at.t, vhat))

        V = F - expand_time(at.u - at.t, at.x_t) * sg(DF)

        return Terms(squared_norm(V - at.dx_t), V - vhat)
