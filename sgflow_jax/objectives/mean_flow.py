"""MeanFlow and improved MeanFlow: regression of the average velocity on its own identity.

Both start from d_t f + (d_x f) v = 0. With f = x + (u - t) F it reads F = v + (u - t) (d_t F + (d_x F) v). Neither lets
a gradient pass through the derivative.
"""

import dataclasses

import jax

from sgflow_jax import flow_map
from sgflow_jax.interfaces import expand_time, squared_norm
from sgflow_jax.objectives.base import velocity
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss

sg = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class MeanFlow(FlowMapObjective):
    """MeanFlow (Geng et al. 2025, arXiv 2505.13447, Algorithm 1), in this project's direction of time.

        |F - sg[dx_t + (u - t) (d_t F + (d_x F) dx_t)]|^2,   F = F(t, u, x_t)

    on t < u, and flow matching on t = u. dx_t, whose mean is v, takes the place of v; a teacher's velocity replaces it.
    The paper has weight "adaptive" with power 0.5 to 1. It is off here: it moves the stationary point away from the
    true map wherever dx_t given x_t is not symmetric.
    """

    weight_offset: float = 1e-3

    weights = ("none", "adaptive", "learned")
    takes_teacher = True
    has_targets = True
    regression = True

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        target = self.target_net(net)
        v = examples.dx_t if teacher is None else velocity(target, teacher, t, x_t)

        F, DF = flow_map.average_velocity_derivative(net, t, u, x_t, flow_map.backward_tangent(t, v), target)

        return OffDiagonalLoss(squared_norm(F - sg(v + expand_time(u - t, x_t) * DF)))


@dataclasses.dataclass(frozen=True)
class ImprovedMeanFlow(FlowMapObjective):
    """Improved MeanFlow (Geng et al. 2025, arXiv 2512.02012), in this project's direction of time.

        |F - (u - t) sg[d_t F + (d_x F) vhat] - dx_t|^2,   vhat = sg[F(t, t, x_t)]

    on t < u, and flow matching on t = u. The derivative is along the model's own velocity, or a teacher's. So the noise
    of dx_t enters the target alone, and R = F - (u - t) (d_t F + (d_x F) vhat) - vhat is free of it. The paper's
    adaptive weight has weight_offset 1e-3.
    """

    weights = ("none", "residual", "adaptive", "learned")
    takes_teacher = True
    has_targets = True
    regression = True

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        target = self.target_net(net)
        vhat = sg(velocity(target, teacher, t, x_t))

        F, DF = flow_map.average_velocity_derivative(net, t, u, x_t, flow_map.backward_tangent(t, vhat), target)

        V = F - expand_time(u - t, x_t) * sg(DF)

        return OffDiagonalLoss(squared_norm(V - examples.dx_t), V - vhat)
