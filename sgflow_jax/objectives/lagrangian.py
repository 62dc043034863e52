"""Lagrangian self-distillation: d_u f(t, u, x) = v(u, f(t, u, x)) for the model's own velocity."""

import dataclasses

import jax

from sgflow_jax import flow_map
from sgflow_jax.interfaces import expand_time
from sgflow_jax.objectives.base import velocity
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss

sg = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class LSD(FlowMapObjective):
    """LSD (Boffi et al. 2025, arXiv 2505.18825; the SGFlow paper's "Lagrange").

        |d_u f - v(u, f)|^2,   f = f(t, u, x_t),   v(u, f) = F(u, u, f), or a teacher's velocity

    on t < u, and flow matching on t = u.

    stopgrad: "convex" (default, Boffi et al.'s choice) is d_u f - sg[v(u, f)]. "none" lets the gradient into v and,
        through f, into its input (the SGFlow paper's baseline).
    """

    stopgrad: str = "convex"

    takes_teacher = True

    def __post_init__(self):
        super().__post_init__()
        self._one_of("stopgrad", ("none", "convex"))

    @property
    def nested(self) -> bool:
        return self.stopgrad == "none"

    @property
    def has_targets(self) -> bool:
        return self.stopgrad != "none"

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point

        f, d_u_f = flow_map.map_and_derivative(net, t, u, x_t, flow_map.forward_tangent(u, x_t))

        if self.stopgrad == "none":
            v = velocity(net, teacher, u, f)
        else:
            v = sg(velocity(self.target_net(net), teacher, u, sg(f)))

        return OffDiagonalLoss.square(d_u_f - v)


@dataclasses.dataclass(frozen=True)
class SlimLSD(FlowMapObjective):
    """Slim LSD (Shen et al. 2026, arXiv 2609.16222): only the direct prediction carries a gradient.

        |F - sg[v(u, f) - (u - t) d_u F]|^2,   F = F(t, u, x_t),   v(u, f) = F(u, u, f), or a teacher's velocity

    on t < u, and flow matching on t = u. The residual is that of LSD, since d_u f = F + (u - t) d_u F.
    """

    takes_teacher = True
    has_targets = True
    regression = True

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        gap = expand_time(u - t, x_t)

        target = self.target_net(net)
        F, d_u_F = flow_map.average_velocity_derivative(net, t, u, x_t, flow_map.forward_tangent(u, x_t), target)

        f = sg(x_t + gap * F)

        return OffDiagonalLoss.square(F - sg(velocity(target, teacher, u, f) - gap * d_u_F))
