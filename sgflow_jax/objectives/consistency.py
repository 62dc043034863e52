"""Consistency training: f(., 1, .) is constant along a path, in discrete time and in the continuous limit."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgflow_jax import flow_map, interpolant
from sgflow_jax.interfaces import InputError, LossOut, expand_time, squared_norm
from sgflow_jax.objectives.base import Objective, Points, velocity
from sgflow_jax.times import Domain

sg = jax.lax.stop_gradient


class Neighbours(NamedTuple):
    """Points of paths at times t, and the points x_s at the next times s. s: [b]. x_s: [b, ...]."""

    here: Points
    s: jax.Array
    x_s: jax.Array


@dataclasses.dataclass(frozen=True)
class Consistency(Objective):
    """Consistency models (Song et al. 2023, arXiv 2303.01469, Algorithm 3; Song & Dhariwal 2024, arXiv 2310.14189).

        discrete:    |f(t, 1, x_t) - sg[f(s, 1, x_s)]|^2 / (s - t),   t = n / N,   s = (n + 1) / N
        continuous:  |f(t, 1, x_t) - sg[f(t, 1, x_t) + D f]|^2,   D f = d_t f + (d_x f) dx_t

    Only u = 1 is trained, so sampling in several steps returns to noise in between. x_s lies on the path of the same
    pair; with a teacher, or with velocity_target "batch", it is an Euler step from x_t (consistency distillation). The
    discrete loss has a bias of order 1 / N. The continuous one, whose gradient is the limit of the other's (Song et
    al., Theorem 6), has none; its value is only the size of D f, mostly noise.

    continuous: which of the two.
    initial_intervals, final_intervals, doubling_steps: N starts at the first, doubles every doubling_steps training
        steps, and stops at the second (Song & Dhariwal, section 3.4).
    """

    continuous: bool = False
    initial_intervals: int = 8
    final_intervals: int = 64
    doubling_steps: int = 500

    domain = Domain.TO_DATA
    takes_teacher = True
    regression = True

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.initial_intervals <= self.final_intervals or self.doubling_steps < 1:
            raise InputError(
                f"initial_intervals is {self.initial_intervals}, final_intervals {self.final_intervals}, doubling_steps"
                f" {self.doubling_steps}: use 1 <= initial_intervals <= final_intervals and a positive doubling_steps"
            )

    @property
    def exact(self) -> bool:
        return self.continuous

    def intervals(self, step) -> jax.Array:
        """N at a training step."""
        doublings = jnp.asarray(step) // self.doubling_steps
        return jnp.minimum(self.initial_intervals * 2.0**doublings, self.final_intervals)

    def draw(self, key, x0, x1, step, alike=None) -> Points | Neighbours:
        if self.continuous:
            return super().draw(key, x0, x1, step, alike)

        t = self.make_law().single(key, len(x1), x1.dtype)
        N = self.intervals(step).astype(t.dtype)
        t = jnp.minimum(jnp.floor(t * N), N - 1) / N  # float32 may round a time up to 1
        s = t + 1 / N

        here = self.points(t, x0, x1, x1, alike)
        if self.velocity_target == "pair":
            x_s, _ = interpolant.make(self.interpolant).sample(s, x0, x1)
        else:
            x_s = _euler(here.x_t, t, s, here.dx_t)
        return Neighbours(here, s, x_s)

    def loss(self, net, drawn, teacher):
        if self.make_guidance().on and teacher is None:
            raise InputError("consistency trains no velocity that could guide it: give a teacher, or guidance 1")
        return super().loss(net, drawn, teacher)

    def guide(self, net, drawn):
        return drawn  # with guidance the velocity is the teacher's

    def unguided_loss(self, net, drawn, teacher):
        loss = (self._continuous if self.continuous else self._discrete)(net, drawn, teacher)
        return LossOut(loss, {"consistency_loss": jnp.mean(loss)})

    def _continuous(self, net, points, teacher):
        t, x_t, dx_t = points
        v = dx_t if teacher is None else velocity(net, teacher, t, x_t)

        f, Df = flow_map.map_and_derivative(net, t, jnp.ones_like(t), x_t, flow_map.backward_tangent(t, v))

        return squared_norm(f - sg(f + Df))

    def _discrete(self, net, neighbours, teacher):
        (t, x_t, _), s, x_s = neighbours
        if teacher is not None:
            x_s = _euler(x_t, t, s, velocity(net, teacher, t, x_t))

        one = jnp.ones_like(t)
        difference = flow_map.apply(net, t, one, x_t) - sg(flow_map.apply(net, s, one, x_s))

        return squared_norm(difference) / (s - t)


def _euler(x_t, t, s, v):
    """One Euler step from time t to time s."""
    return x_t + expand_time(s - t, x_t) * v
