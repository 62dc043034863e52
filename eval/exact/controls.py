"""Objectives known to be wrong, which an audit must catch."""

import dataclasses

import jax

from sgflow_jax import flow_map, objectives
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import squared_norm
from sgflow_jax.objectives.base import velocity
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss
from sgflow_jax.objectives.sgflow import SGFlow


@dataclasses.dataclass(frozen=True)
class KeepsNoise(FlowMapObjective):
    """|D f|^2 + noise |(d_x f) e|^2. sgflow has noise -1; 0 is uncorrected, 1 has the wrong sign."""

    noise: float = 0.0

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        e = examples.dx_t - jax.lax.stop_gradient(velocity(net, teacher, t, x_t))
        Df, Je = flow_map.derivatives(
            net, t, u, x_t, flow_map.backward_tangent(t, examples.dx_t), flow_map.spatial_tangent(t, e)
        )
        return OffDiagonalLoss(squared_norm(Df) + self.noise * squared_norm(Je))


@dataclasses.dataclass(frozen=True)
class WrongSign(SGFlow):
    """Guidance from the class towards the null class, dx_t - (W - 1) (dx_t - F_null)."""

    def make_guidance(self) -> Guidance:
        return Guidance(2 - self.guidance, self.guidance_start, self.guidance_end)


@dataclasses.dataclass(frozen=True)
class UnguidedDiagonal(SGFlow):
    """The diagonal learns the velocity of the class, the rest the map of the guided one."""

    def guide(self, net, drawn):
        return super().guide(net, drawn)._replace(diagonal=drawn.diagonal)


@dataclasses.dataclass(frozen=True)
class MixesClasses(SGFlow):
    """With velocity_target "batch", takes the mean over the data of all classes."""

    def draw(self, key, x0, x1, step, alike=None):
        return super().draw(key, x0, x1, step)


CONTROLS = {
    "control: |D f|^2 uncorrected": KeepsNoise(),
    "control: correction of the wrong sign": KeepsNoise(noise=1.0),
    "control: mean_flow(weight=adaptive)": objectives.make("mean_flow", weight="adaptive"),
    "control: improved_mean_flow(weight=adaptive)": objectives.make(
        "improved_mean_flow", weight="adaptive", weight_offset=1e-3
    ),
    "control: guidance of the wrong sign": WrongSign(guidance=2.0),
    "control: guidance off the diagonal only": UnguidedDiagonal(guidance=2.0, velocity_target="batch"),
    "control: batch means over all classes": MixesClasses(guidance=2.0, velocity_target="batch"),
}
# On a symmetric law these are stationary at the truth too.
ASYMMETRIC_ONLY = [name for name in CONTROLS if "adaptive" in name]
