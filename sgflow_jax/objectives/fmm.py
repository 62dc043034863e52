"""Flow map matching: the Lagrangian equation along the model's own inverse."""

import dataclasses

from sgflow_jax import flow_map
from sgflow_jax.interfaces import squared_norm
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss


@dataclasses.dataclass(frozen=True)
class FMM(FlowMapObjective):
    """Flow map matching (Boffi et al. 2024, arXiv 2406.07507).

        |d_t f(u, t, y) - dx_t|^2 + |f(u, t, y) - x_t|^2,   y = f(t, u, x_t)

    for t and u in either order, and flow matching on t = u. d_t is at fixed y. Gradients pass through y into the
    inverse f(t, u, .), which must be trained too, so direction is "both".
    """

    direction: str = "both"

    directions = ("both",)
    weights = ("none", "learned")
    nested = True

    def draw_pair(self, key, n, dtype):
        u, t = super().draw_pair(key, n, dtype)  # both orders are equally likely; this one reproduces earlier versions
        return t, u

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point

        y = flow_map.apply(net, t, u, x_t)

        f, d_t_f = flow_map.map_and_derivative(net, u, t, y, flow_map.forward_tangent(t, y))

        inverse = squared_norm(f - x_t)

        return OffDiagonalLoss(
            squared_norm(d_t_f - examples.dx_t) + inverse, metrics={"inverse_norm_sq": inverse.mean()}
        )
