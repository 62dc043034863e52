"""Eulerian self-distillation: d_t f + (d_x f) v = 0 along the model's own velocity."""

import dataclasses

import jax
import jax.numpy as jnp

from sgflow_jax import flow_map
from sgflow_jax.interfaces import expand_time
from sgflow_jax.objectives.base import velocity
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss

sg = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class ESD(FlowMapObjective):
    """ESD (Boffi et al. 2025, arXiv 2505.18825; the SGFlow paper's "Euler").

        |d_t f + (d_x f) v|^2,   v = F(t, t, x_t), or a teacher's velocity

    on t < u, and flow matching on t = u.

    stopgrad: "convex" (default) is d_t f + (d_x f) sg[v], sgflow with correction 0. "full" (Boffi et al.'s choice) is
        d_t f + sg[(d_x f) v], which diverges in some of our runs, as it did in theirs. "none" also lets the gradient
        into v (the SGFlow paper's baseline).
    """

    stopgrad: str = "convex"

    takes_teacher = True

    def __post_init__(self):
        super().__post_init__()
        self._one_of("stopgrad", ("none", "convex", "full"))

    @property
    def nested(self) -> bool:
        return self.stopgrad == "none"

    @property
    def has_targets(self) -> bool:
        return self.stopgrad != "none"

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        target = self.target_net(net)
        v = velocity(target if self.has_targets else net, teacher, t, x_t)

        if self.stopgrad == "full":
            d_t_f = flow_map.derivative(net, t, u, x_t, flow_map.backward_tangent(t, jnp.zeros_like(v)))
            R = d_t_f + sg(flow_map.derivative(target, t, u, x_t, flow_map.spatial_tangent(t, v)))
        else:
            v = v if self.stopgrad == "none" else sg(v)
            R = flow_map.derivative(net, t, u, x_t, flow_map.backward_tangent(t, v))

        return OffDiagonalLoss.square(R)


@dataclasses.dataclass(frozen=True)
class SlimESD(FlowMapObjective):
    """Slim ESD (Shen et al. 2026, arXiv 2609.16222): only the direct prediction carries a gradient.

        |F - sg[v + (u - t) (d_t F + (d_x F) v)]|^2,   F = F(t, u, x_t),   v = F(t, t, x_t), or a teacher's velocity

    on t < u, and flow matching on t = u. The residual is minus that of ESD, d_t f + (d_x f) v.
    """

    takes_teacher = True
    has_targets = True
    regression = True

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        target = self.target_net(net)
        v = sg(velocity(target, teacher, t, x_t))

        F, DF = flow_map.average_velocity_derivative(net, t, u, x_t, flow_map.backward_tangent(t, v), target)

        return OffDiagonalLoss.square(F - sg(v + expand_time(u - t, x_t) * DF))
