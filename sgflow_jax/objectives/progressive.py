"""Progressive self-distillation: one jump equals two, f(s, u, f(t, s, x)) = f(t, u, x)."""

import dataclasses

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import expand_time
from sgflow_jax.objectives.base import FlowMapObjective, Terms


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

    def off_diagonal(self, net, at, teacher):
        g = at.uniform if self.split == "uniform" else jnp.full_like(at.t, 0.5)
        s = at.t + g * (at.u - at.t)

        first = net(at.t, s, at.x_t)

        second = net(s, at.u, at.x_t + expand_time(s - at.t, at.x_t) * first)

        g = expand_time(g, at.x_t)
        two_jumps = g * first + (1 - g) * second

        F = net(at.t, at.u, at.x_t)
        return Terms.square(F - (two_jumps if self.stopgrad == "none" else jax.lax.stop_gradient(two_jumps)))
