"""Consistency training: f(., 1, .) is constant along a path, in discrete time and in the continuous limit."""

import dataclasses
import math
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
    distance, huber_scale: "squared", |r|^2 as above, or "pseudo_huber", sqrt(|r|^2 + c^2) - c with c = huber_scale
        sqrt(D) for D coordinates (Song & Dhariwal, section 3.3). It weights an example by about 1 / |r|, and r has the
        noise of dx_t. So it moves the stationary point, from the mean towards a median, where |r| is not small
        against c.
    interval: the length that divides the discrete loss. "time": s - t. "noise_level": sigma_t - sigma_s for the ratio
        sigma of noise to data in x_t, (1 - t) / t on the linear path (Song & Dhariwal, section 3.1). It is infinite at
        t = 0, so examples there have weight 0.
    initial_intervals, final_intervals, doubling_steps: N starts at the first, doubles every doubling_steps training
        steps, and stops at the second (Song & Dhariwal, section 3.4).

    iCT is continuous False, distance pseudo_huber, interval noise_level, time_law logit_normal with logit_mean 1.1 and
    logit_std 2 (section 3.5; each interval has its share of the law, as there), initial_intervals 10, final_intervals
    1280. Two things differ: the intervals here are equal in t, not in Karras et al.'s sigma^(1/7) from 80 to 0.002, and
    f is x + (1 - t) F, not c_skip x + c_out F with sigma_data = 1/2.
    """

    continuous: bool = False
    initial_intervals: int = 8
    final_intervals: int = 64
    doubling_steps: int = 500
    distance: str = "squared"
    huber_scale: float = 0.00054
    interval: str = "time"

    domain = Domain.TO_DATA
    takes_teacher = True
    has_targets = True
    regression = True

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.initial_intervals <= self.final_intervals or self.doubling_steps < 1:
            raise InputError(
                f"initial_intervals is {self.initial_intervals}, final_intervals {self.final_intervals}, doubling_steps"
                f" {self.doubling_steps}: use 1 <= initial_intervals <= final_intervals and a positive doubling_steps"
            )

        self._one_of("distance", ("squared", "pseudo_huber"))
        self._one_of("interval", ("time",) if self.continuous else ("time", "noise_level"))
        if self.huber_scale <= 0:
            raise InputError(f"huber_scale is {self.huber_scale}: use a positive number")

    @property
    def exact(self) -> bool:
        return self.continuous and self.distance == "squared"

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
        r = (self._continuous if self.continuous else self._discrete)(net, drawn, teacher)
        squares = squared_norm(r)

        loss = self._divided(squares, drawn)
        metrics = {"consistency_loss": jnp.mean(loss)}
        if self.distance == "squared":
            return LossOut(loss, metrics)

        c = self.huber_scale * math.sqrt(r[0].size)
        # sqrt(|r|^2 + c^2) - c without its cancellation.
        huber = squares / (jnp.sqrt(squares + c**2) + c)
        return LossOut(self._divided(huber, drawn), metrics, (metrics["consistency_loss"],), degree=0.5)

    def _continuous(self, net, points, teacher):
        t, x_t, dx_t = points
        target = self.target_net(net)
        v = dx_t if teacher is None else velocity(target, teacher, t, x_t)
        one = jnp.ones_like(t)

        f, Df = flow_map.map_and_derivative(target, t, one, x_t, flow_map.backward_tangent(t, v))

        return (f if target is net else flow_map.apply(net, t, one, x_t)) - sg(f + Df)

    def _discrete(self, net, neighbours, teacher):
        (t, x_t, _), s, x_s = neighbours
        target = self.target_net(net)
        if teacher is not None:
            x_s = _euler(x_t, t, s, velocity(target, teacher, t, x_t))

        one = jnp.ones_like(t)
        return flow_map.apply(net, t, one, x_t) - sg(flow_map.apply(target, s, one, x_s))

    def _divided(self, losses, drawn):
        """The losses [b], in discrete time divided by the length of their intervals."""
        if self.continuous:
            return losses
        (t, *_), s, _ = drawn
        return losses / (s - t if self.interval == "time" else self._noise_level(t) - self._noise_level(s))

    def _noise_level(self, t):
        """The ratio of noise to data in x_t; at t = 0 a very large number."""
        path = interpolant.make(self.interpolant)
        return path.alpha(t) / jnp.maximum(path.sigma(t), 2 * jnp.finfo(t.dtype).tiny)


def _euler(x_t, t, s, v):
    """One Euler step from time t to time s."""
    return x_t + expand_time(s - t, x_t) * v
