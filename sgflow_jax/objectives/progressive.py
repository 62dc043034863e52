"""Progressive self-distillation: one jump equals two, f(s, u, f(t, s, x)) = f(t, u, x)."""

import dataclasses

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import expand_time
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss


@dataclasses.dataclass(frozen=True)
class PSD(FlowMapObjective):
    """PSD (Boffi et al. 2025, arXiv 2505.18825; the SGFlow paper's "Progressive").

        |F(t, u, x_t) - (g F(t, s, x_t) + (1 - g) F(s, u, f(t, s, x_t)))|^2,   s = t + g (u - t)

    on t < u, and flow matching on t = u. It is |f(t, u, x_t) - f(s, u, f(t, s, x_t))|^2 / (u - t)^2.

    split: g is 1/2 ("midpoint") or uniform in (0, 1) ("uniform").
    stopgrad: "convex" (default) detaches the two jumps; "none" does not.
    """

    split: str = "midpoint"
    stopgrad: str = "convex"

    def __post_init__(self):
        super().__post_init__()
        self._one_of("split", ("midpoint", "uniform"))
        self._one_of("stopgrad", ("none", "convex"))

    @property
    def nested(self) -> bool:
        return self.stopgrad == "none"

    @property
    def regression(self) -> bool:
        return self.stopgrad == "convex"

    @property
    def has_targets(self) -> bool:
        return self.stopgrad == "convex"

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        g = examples.uniform if self.split == "uniform" else jnp.full_like(t, 0.5)
        s = t + g * (u - t)

        inner = self.target_net(net) if self.has_targets else net
        first = inner(t, s, x_t)

        second = inner(s, u, x_t + expand_time(s - t, x_t) * first)

        g = expand_time(g, x_t)
        two_jumps = g * first + (1 - g) * second

        F = net(t, u, x_t)
        return OffDiagonalLoss.square(F - (two_jumps if self.stopgrad == "none" else jax.lax.stop_gradient(two_jumps)))
