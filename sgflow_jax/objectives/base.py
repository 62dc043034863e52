"""What every objective shares: times, interpolant, the diagonal, warm-up and ramp, metrics.

A flow-map objective adds only its off-diagonal loss (`FlowMapObjective.off_diagonal`).
"""

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp

from sgflow_jax import interpolant
from sgflow_jax.interfaces import InputError, LossOut, Net, restrict, squared_norm
from sgflow_jax.times import Strata, TimeLaw


@dataclasses.dataclass(frozen=True)
class Objective(abc.ABC):
    """One training loss: objective(net, x0, x1, key, step=0, teacher=None) -> LossOut. Frozen and hashable.

    Fields are the options a config may set.
    interpolant: "linear" or "trigonometric".
    time_law, logit_mean, logit_std: the law of each time, see `times.TimeLaw`.
    """

    interpolant: str = "linear"
    time_law: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0

    # How a network trained with this objective is sampled unless asked otherwise (`sampling.METHODS`).
    sampler = "flow_map"
    # Batches must be a multiple of this, on every device.
    batch_multiple = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{field.name} is {value}: use a finite number")
        interpolant.make(self.interpolant)
        self.make_law()  # a wrong law is refused here, not in the middle of a trace

    def make_law(self) -> TimeLaw:
        return TimeLaw(self.time_law, self.logit_mean, self.logit_std)

    @abc.abstractmethod
    def __call__(
        self, net: Net, x0: jax.Array, x1: jax.Array, key: jax.Array, step=0, teacher: Net | None = None
    ) -> LossOut:
        """The loss of a batch.

        net: the average velocity being trained. x0 [B, ...]: noise. x1 [B, ...]: data. key: for the times. step: the
        training step, for warm-up. teacher: a given velocity network, F(t, t, x), for distillation.
        """


@dataclasses.dataclass(frozen=True)
class FlowMapObjective(Objective):
    """Flow matching on the diagonal t = u plus an off-diagonal loss on t < u that a subclass defines.

    prob_diagonal: the share of the batch with t = u, exactly (see `times.Strata`).
    warmup_steps, ramp_steps: the off-diagonal loss has weight 0 for warmup_steps steps, then grows linearly to 1 over
        ramp_steps. While the velocity on the diagonal is wrong, some off-diagonal losses are not bounded below.
    """

    prob_diagonal: float = 0.5
    warmup_steps: int = 0
    ramp_steps: int = 0

    def __post_init__(self):
        super().__post_init__()
        self.make_strata()  # refuses a share that no split has
        if self.warmup_steps < 0 or self.ramp_steps < 0:
            raise InputError(f"warmup_steps is {self.warmup_steps}, ramp_steps {self.ramp_steps}: use 0 or more steps")

    def make_strata(self) -> Strata:
        return Strata.from_probability(self.prob_diagonal)

    @property
    def batch_multiple(self) -> int:
        return self.make_strata().group

    @abc.abstractmethod
    def off_diagonal(self, net: Net, t, u, x_t, dx_t, teacher: Net | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The off-diagonal loss of each example, [b], and its own metrics. t, u: [b]; x_t, dx_t: [b, ...]."""

    def weigh(self, squared_residual: jax.Array) -> jax.Array:
        """Weights the losses of examples, on the diagonal and off it: [b] -> [b]. None unless a subclass has one."""
        return squared_residual

    def ramp(self, step) -> jax.Array:
        """The weight of the off-diagonal loss at a training step, in [0, 1]."""
        since = jnp.asarray(step, jnp.float32) - self.warmup_steps
        return jnp.clip((since + 1) / (self.ramp_steps + 1), 0, 1)

    def __call__(self, net, x0, x1, key, step=0, teacher=None):
        strata, law = self.make_strata(), self.make_law()
        path = interpolant.make(self.interpolant)
        key_on, key_off = jax.random.split(key)

        on = [strata.on_diagonal(a) for a in (x0, x1)]
        t = law.single(key_on, on[0].shape[0], x1.dtype)
        x_t, dx_t = path.sample(t, *on)
        loss_on = diagonal_loss(restrict(net, strata.on_diagonal), t, x_t, dx_t)

        off = [strata.off_diagonal(a) for a in (x0, x1)]
        t, u = law.pair(key_off, off[0].shape[0], x1.dtype)
        x_t, dx_t = path.sample(t, *off)
        teacher = restrict(teacher, strata.off_diagonal)
        loss_off, metrics = self.off_diagonal(restrict(net, strata.off_diagonal), t, u, x_t, dx_t, teacher)

        # Before weights and ramp, which the loss has and hides.
        metrics = {
            "diagonal_loss": jnp.mean(loss_on),
            "off_diagonal_loss": jnp.mean(loss_off),
            **metrics,
        }
        ramp = self.ramp(step).astype(x1.dtype)
        return LossOut(strata.merge(self.weigh(loss_on), ramp * self.weigh(loss_off)), metrics)


def diagonal_loss(net: Net, t: jax.Array, x_t: jax.Array, dx_t: jax.Array) -> jax.Array:
    """Flow matching, |F(t, t, x_t) - dx_t|^2, [B] (Lipman et al. 2023, eq. 9; Albergo & Vanden-Eijnden 2023)."""
    return squared_norm(net(t, t, x_t) - dx_t)


def velocity(net: Net, teacher: Net | None, t: jax.Array, x_t: jax.Array) -> jax.Array:
    """vhat = sg[F(t, t, x_t)], the velocity an objective takes for the truth: the model's own, or a teacher's."""
    source = net if teacher is None else teacher
    return jax.lax.stop_gradient(source(t, t, x_t))


def no_teacher(objective: Objective, teacher: Net | None) -> None:
    """InputError when a teacher is given to an objective that has no use for one."""
    if teacher is not None:
        raise InputError(f"{type(objective).__name__} takes no teacher: leave it out")
