"""Shortcut models: one jump equals two of half its size, on step sizes 1, 1/2, 1/4, ..."""

import dataclasses

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError, expand_time
from sgflow_jax.objectives.base import velocity
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonalLoss
from sgflow_jax.times import Domain


@dataclasses.dataclass(frozen=True)
class Shortcut(FlowMapObjective):
    """Shortcut models (Frans et al. 2025, arXiv 2410.12557).

        |F(t, u, x_t) - sg[F(t, m, x_t) + F(m, u, f(t, m, x_t))] / 2|^2,   m = (t + u) / 2

    on t < u with u - t in {1, 1/2, ..., 1 / num_steps} and t a multiple of it, and flow matching on t = u. The halves
    of the smallest step are Euler steps on the velocity, F(t, t, .) or a teacher's, so the stationary point is that of
    Euler's method with 2 num_steps steps: close to the true map, but not equal to it.

    num_steps: the largest number of steps, a power of 2.
    """

    num_steps: int = 128

    domain = Domain.DYADIC
    directions = ("forward",)
    exact = False
    takes_teacher = True
    has_targets = True
    regression = True

    def __post_init__(self):
        super().__post_init__()
        if self.num_steps < 1 or self.num_steps & (self.num_steps - 1):
            raise InputError(f"num_steps of Shortcut is {self.num_steps}: use a power of 2, like 128")

    @property
    def step_counts(self) -> tuple[int, ...]:
        return tuple(2**k for k in range(self.num_steps.bit_length()))

    def draw_pair(self, key, n, dtype):
        key_size, key_time = jax.random.split(key)
        sizes = 1 / jnp.asarray(self.step_counts, dtype)
        size = jax.random.choice(key_size, sizes, (n,))
        t = jnp.floor(self.make_law().single(key_time, n, dtype) / size) * size
        t = jnp.minimum(t, 1 - size)  # float32 may round a time up to 1
        return t, t + size

    def off_diagonal(self, net, examples, teacher):
        t, u, x_t = examples.point
        m = (t + u) / 2
        smallest = (u - t) * self.num_steps < 1.5
        target = self.target_net(net)

        def half_jump(t, m, x):
            """F(t, m, x), or the velocity at t where the step is the smallest."""
            if teacher is None:
                return target(t, jnp.where(smallest, t, m), x)
            return jnp.where(expand_time(smallest, x), velocity(target, teacher, t, x), target(t, m, x))

        first = half_jump(t, m, x_t)

        second = half_jump(m, u, x_t + expand_time(m - t, x_t) * first)

        return OffDiagonalLoss.square(net(t, u, x_t) - jax.lax.stop_gradient((first + second) / 2))
