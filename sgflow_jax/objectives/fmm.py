"""Flow map matching: the Lagrangian equation along the model's own inverse."""

import dataclasses

from sgflow_jax import flow_map
from sgflow_jax.interfaces import squared_norm
from sgflow_jax.objectives.base import FlowMapObjective, Terms


@dataclasses.dataclass(frozen=True)
class FMM(FlowMapObjective):
    """Flow map matching (Boffi et al. 2024, arXiv 2406.07507).

        |d_u f(t, u, y) - dx_u|^2 + |f(t, u, y) - x_u|^2,   y = f(u, t, x_u)

    for t and u in any order, and flow matching on t = u. d_u is at fixed y; gradients pass through y into the inverse
    f(u, t, .), which must be trained too: direction is "both".
    """

    direction: str = "both"

    directions = ("both",)
    weights = ("none",)
    nested = True

    def off_diagonal(self, net, at, teacher):
        x_u, dx_u = self.draw(at.u, at.x0, at.x1, at.batch)

        y = flow_map.apply(net, at.u, at.t, x_u)

        f, d_u_f = flow_map.map_and_derivative(net, at.t, at.u, y, flow_map.forward_tangent(at.u, y))

        inverse = squared_norm(f - x_u)

        return Terms(squared_norm(d_u_f - dx_u) + inverse, metrics={"inverse_norm_sq": inverse.mean()})
