"""Consistency trajectory models: a jump from x_t equals the jump from one solver step later."""

import dataclasses

import jax
import jax.numpy as jnp

from sgflow_jax import flow_map
from sgflow_jax.interfaces import InputError, expand_time
from sgflow_jax.objectives.base import velocity
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss


@dataclasses.dataclass(frozen=True)
class CTM(FlowMapObjective):
    """CTM (Kim et al. 2024, arXiv 2310.02279), without its adversarial term and with squared distance.

        |g(f(t, u, x_t)) - sg[g(f(s, u, x_s))]|^2 / (s - t),   g(x) = f_sg(u, 1, x),   s = min(t + 1 / intervals, u)

    on t < u, and flow matching on t = u. x_s = x_t + (s - t) v is one Euler step along v = F(t, t, x_t), the model's
    own velocity or a teacher's. g compares both ends at time 1; f_sg is f with detached parameters. The Euler step
    leaves a bias of order 1 / intervals.

    intervals: Euler steps from noise to data.
    """

    intervals: int = 64

    directions = ("forward",)
    pairings = ("sorted",)  # it divides by s - t
    exact = False
    takes_teacher = True
    has_targets = True
    nested = True

    def __post_init__(self):
        super().__post_init__()
        if self.intervals < 1:
            raise InputError(f"intervals of CTM is {self.intervals}: use a positive integer")

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        s = jnp.minimum(t + 1 / self.intervals, u)
        step = expand_time(s - t, x_t)
        target = self.target_net(net)

        x_s = x_t + step * velocity(target, teacher, t, x_t)

        def g(x):
            return flow_map.apply(flow_map.detached(target), u, jnp.ones_like(u), x)

        here, later = flow_map.apply(net, t, u, x_t), flow_map.apply(target, s, u, x_s)
        difference = g(here) - jax.lax.stop_gradient(g(later))

        # Of the size of the differential equation's residual for any step. Without tiny, t = u would divide 0 by 0.
        R = difference / jnp.maximum(step, jnp.finfo(x_t.dtype).tiny)
        square = OffDiagonalLoss.square(R)
        return square._replace(per_example=(s - t) * square.per_example)
