"""Eulerian self-distillation: d_t f + (d_x f) v = 0 along the model's own velocity."""

import dataclasses

import jax
import jax.numpy as jnp

from sgflow_jax import flow_map
from sgflow_jax.interfaces import expand_time
from sgflow_jax.objectives.base import FlowMapObjective, Terms, velocity

sg = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class ESD(FlowMapObjective):
    """ESD (Boffi et al. 2025, arXiv 2505.18825; the SGFlow paper's "Euler").

        |d_t f + (d_x f) v|^2,   v = F(t, t, x_t), or a teacher's velocity

    on t < u, and flow matching on t = u.

    stopgrad: "convex" (default) is d_t f + (d_x f) sg[v], sgflow with correction 0; "full" (Boffi et al.'s choice) is
        d_t f + sg[(d_x f) v], which diverges in some of our runs, as it did in theirs; "none" lets the gradient into v
        too (the SGFlow paper's baseline).
    """

    stopgrad: str = "convex"

    takes_teacher = True

    def __post_init__(self):
        super().__post_init__()
        self._one_of("stopgrad", ("none", "convex", "full"))

    @property
    def nested(self) -> bool:
        return self.stopgrad == "none"

    def off_diagonal(self, net, at, teacher):
        v = velocity(net, teacher, at.t, at.x_t)
        point = at.t, at.u, at.x_t

        if self.stopgrad == "full":
            d_t_f = flow_map.derivative(net, *point, flow_map.backward_tangent(at.t, jnp.zeros_like(v)))
            R = d_t_f + sg(flow_map.derivative(net, *point, flow_map.spatial_tangent(at.t, v)))
        else:
            v = v if self.stopgrad == "none" else sg(v)
            R = flow_map.derivative(net, *point, flow_map.backward_tangent(at.t, v))

        return Terms.square(R)


@dataclasses.dataclass(frozen=True)
class SlimESD(FlowMapObjective):
    """Slim ESD (Shen et al. 2026, arXiv 2609.16222): only the direct prediction carries a gradient.

        |F - sg[v + (u - t) (d_t F + (d_x F) v)]|^2,   F = F(t, u, x_t),   v = F(t, t, x_t), or a teacher's velocity

    on t < u, and flow matching on t = u. The same residual as ESD, as d_t f + (d_x f) v is minus what is squared here.
    """

    takes_teacher = True
    regression = True

    def off_diagonal(self, net, at, teacher):
        v = sg(velocity(net, teacher, at.t, at.x_t))

        F, DF = flow_map.average_velocity_derivative(net, at.t, at.u, at.x_t, flow_map.backward_tangent(at.t, v))

        return Terms.square(F - sg(v + expand_time(at.u - at.t, at.x_t) * DF))
