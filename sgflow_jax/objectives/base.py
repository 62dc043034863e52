"""What every objective shares: times, interpolant, the diagonal, warm-up and ramp, weights, metrics.

A flow-map objective adds only its off-diagonal loss (`FlowMapObjective.off_diagonal`).
"""

import abc
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgflow_jax import interpolant
from sgflow_jax.interfaces import InputError, LossOut, Net, restrict, squared_norm
from sgflow_jax.times import Domain, Strata, TimeLaw

VELOCITY_TARGETS = ("pair", "batch")


@dataclasses.dataclass(frozen=True)
class Objective(abc.ABC):
    """One training loss: objective(net, x0, x1, key, step=0, teacher=None) -> LossOut. Frozen and hashable.

    Fields are the options a config may set.
    interpolant: "linear" or "trigonometric".
    time_law, logit_mean, logit_std: the law of each time, see `times.TimeLaw`: a published logit_mean may want its sign
        changed.
    velocity_target: what stands for dx_t. "pair" is the velocity of the example's own pair. "batch" is its conditional
        mean given x_t when the data are the batch (`interpolant.Interpolant.mean_velocity`): the same expected gradient
        with less noise. Not for labelled networks, whose velocity is that of one class.
    """

    interpolant: str = "linear"
    time_law: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    velocity_target: str = "pair"

    # Where the network learns F(t, u, x): decides how it can be sampled (`sampling.METHODS`).
    domain = Domain.FORWARD
    # The numbers of steps of `flow_map` sampling it is trained for; None for any.
    step_counts = None
    # Whether the true map is a stationary point; without, it is one only as some step size goes to 0.
    exact = True
    # Whether a given velocity network may stand for the velocity (distillation).
    takes_teacher = False
    # Whether the loss is |F(t, u, x_t) - target|^2 (or the same of f) with no gradient through the target.
    regression = False
    # Whether gradients pass through one call of the network into another call that made its input.
    nested = False
    # Batches must be a multiple of this, on every device.
    batch_multiple = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{field.name} is {value}: use a finite number")
        interpolant.make(self.interpolant)
        self.make_law()  # a wrong law is refused here, not in the middle of a trace
        self._one_of("velocity_target", VELOCITY_TARGETS)

    def _one_of(self, field: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, field)
        if value not in allowed:
            choice = f"one of {', '.join(allowed)}" if len(allowed) > 1 else repr(allowed[0])
            raise InputError(f"{field} of {type(self).__name__} is {value!r}: use {choice}")

    def make_law(self) -> TimeLaw:
        return TimeLaw(self.time_law, self.logit_mean, self.logit_std)

    def draw(self, t: jax.Array, x0: jax.Array, x1: jax.Array, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(x_t, dx_t), like x1 [b, ...]. batch: the data of the whole batch [B, ...], for velocity_target "batch"."""
        path = interpolant.make(self.interpolant)
        x_t, dx_t = path.sample(t, x0, x1)
        if self.velocity_target == "batch":
            dx_t = path.mean_velocity(t, x0, x1, batch)
        return x_t, dx_t

    def __call__(
        self, net: Net, x0: jax.Array, x1: jax.Array, key: jax.Array, step=0, teacher: Net | None = None
    ) -> LossOut:
        """The loss of a batch.

        net: the average velocity being trained. x0 [B, ...]: noise. x1 [B, ...]: data. key: for the times. step: the
        training step, for warm-up and schedules. teacher: a given velocity network, F(t, t, x), for distillation.
        """
        if teacher is not None and not self.takes_teacher:
            raise InputError(f"{type(self).__name__} takes no teacher: leave it out")
        return self.loss(net, x0, x1, self.draw_times(key, len(x1), x1.dtype), x1, step, teacher)

    def draw_times(self, key: jax.Array, n: int, dtype) -> Any:
        """All that is random in the loss of n examples: arrays with a row for each example, or for each of the kind
        that uses them, in order. So a part of the batch goes with a part of each. By default one time, [n]."""
        return self.make_law().single(key, n, dtype)

    @abc.abstractmethod
    def loss(self, net: Net, x0, x1, times: Any, batch, step, teacher: Net | None) -> LossOut:
        """What `__call__` returns, for a part [b, ...] of a batch, whose data are all in `batch` [B, ...]. times: the
        part of what `draw_times` gave for all."""


class Times(NamedTuple):
    """The times of a batch. diagonal: t = u, one for each diagonal example. t, u, uniform: one each for the others;
    uniform in [0, 1), for what else is random."""

    diagonal: jax.Array
    t: jax.Array
    u: jax.Array
    uniform: jax.Array


class OffDiagonal(NamedTuple):
    """The off-diagonal examples of a batch.

    t, u: [b]. x_t, dx_t: [b, ...], at time t. x0, x1: the pairs, [b, ...]. batch: all data of the batch [B, ...].
    uniform: [b] in [0, 1), for what else is random. step: of training.
    """

    t: jax.Array
    u: jax.Array
    x_t: jax.Array
    dx_t: jax.Array
    x0: jax.Array
    x1: jax.Array
    batch: jax.Array
    uniform: jax.Array
    step: jax.Array | int


class Terms(NamedTuple):
    """What an off-diagonal loss returns.

    loss: [b]. residual: [b, ...], what vanishes at the true map, free of the noise of dx_t; None if it is not computed.
    metrics: means of squared norms beyond those every objective has.
    """

    loss: jax.Array
    residual: jax.Array | None = None
    metrics: dict[str, jax.Array] = {}

    @classmethod
    def square(cls, residual: jax.Array) -> "Terms":
        """The loss |residual|^2."""
        return cls(squared_norm(residual), residual)


@dataclasses.dataclass(frozen=True)
class FlowMapObjective(Objective):
    """Flow matching on the diagonal t = u plus an off-diagonal loss on t != u that a subclass defines.

    prob_diagonal: the share of the batch with t = u, exactly (see `times.Strata`).
    warmup_steps, ramp_steps: the off-diagonal loss has weight 0 for warmup_steps steps, then grows linearly to 1 over
        ramp_steps. While the velocity on the diagonal is wrong, some off-diagonal losses are not bounded below.
    direction: "forward" trains t < u, from noise to data; "both" also the inverse map, t > u, on half of the pairs.
    weight: of each example, without gradient. "none". "residual": 1 / (|R|^2 + c)^p off the diagonal, R the residual
        without the noise of dx_t, so a function of (t, u, x_t) that keeps the stationary point. "adaptive" (mean_flow
        and improved_mean_flow): 1 / (loss + c)^p everywhere, MeanFlow's own, which depends on dx_t and moves it.
    weight_power, weight_offset: p >= 0, and c > 0 in units of |x|^2, the sum over coordinates, as in the papers.

    A weighted loss has the size of |x|^(2 - 2p), so it is divided by D^(1-p), not by the number of coordinates D: with
    p = 1 it is MeanFlow's, undivided, with p = 0 the unweighted one, and with any p it is (loss / D) / (loss / D +
    c / D)^p, the same for any image size while c is small against the sums. "residual" leaves the diagonal unweighted,
    |x|^2 / D. So, for any image size and p = 1, an example on the diagonal contributes the mean square error of its
    coordinates and one off it at most about 1. The off-diagonal gradient is 1 / (|R|^2 + c) * D times the unweighted
    one: it gains on the diagonal as R falls, by D / c at most. weight_offset = D bounds that by 1.
    """

    prob_diagonal: float = 0.5
    warmup_steps: int = 0
    ramp_steps: int = 0
    direction: str = "forward"
    weight: str = "none"
    weight_power: float = 1.0
    weight_offset: float = 1.0

    directions = ("forward", "both")
    weights = ("none", "residual")

    def __post_init__(self):
        super().__post_init__()
        self.make_strata()  # refuses a share that no split has
        if self.warmup_steps < 0 or self.ramp_steps < 0:
            raise InputError(f"warmup_steps is {self.warmup_steps}, ramp_steps {self.ramp_steps}: use 0 or more steps")
        self._one_of("direction", self.directions)
        self._one_of("weight", self.weights)
        if self.weight_power < 0 or self.weight_offset <= 0:
            raise InputError("weight_power must be 0 or more and weight_offset positive: correct the one that is not")

    @property
    def domain(self) -> Domain:
        return Domain.BOTH if self.direction == "both" else Domain.FORWARD

    def make_strata(self) -> Strata:
        return Strata.from_probability(self.prob_diagonal)

    @property
    def batch_multiple(self) -> int:
        return self.make_strata().group

    def draw_pair(self, key: jax.Array, n: int, dtype) -> tuple[jax.Array, jax.Array]:
        """The off-diagonal times (t, u), both [n]."""
        return self.make_law().pair(key, n, dtype, both=self.direction == "both")

    @abc.abstractmethod
    def off_diagonal(self, net: Net, at: OffDiagonal, teacher: Net | None) -> Terms:
        """The off-diagonal loss."""

    def ramp(self, step) -> jax.Array:
        """The weight of the off-diagonal loss at a training step, in [0, 1]."""
        since = jnp.asarray(step, jnp.float32) - self.warmup_steps
        return jnp.clip((since + 1) / (self.ramp_steps + 1), 0, 1)

    def _weigh(self, squares: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient((squares + self.weight_offset) ** -self.weight_power)

    def draw_times(self, key, n, dtype):
        on, off = self.make_strata().counts(n)
        key_on, key_off, key_rest = jax.random.split(key, 3)
        diagonal = self.make_law().single(key_on, on, dtype)
        t, u = self.draw_pair(key_off, off, dtype)
        return Times(diagonal, t, u, jax.random.uniform(key_rest, (off,), dtype))

    def loss(self, net, x0, x1, times, batch, step, teacher):
        strata = self.make_strata()

        on = [strata.on_diagonal(a) for a in (x0, x1)]
        x_t, dx_t = self.draw(times.diagonal, *on, batch)
        loss_on = diagonal_loss(restrict(net, strata.on_diagonal), times.diagonal, x_t, dx_t)

        off = [strata.off_diagonal(a) for a in (x0, x1)]
        x_t, dx_t = self.draw(times.t, *off, batch)
        at = OffDiagonal(times.t, times.u, x_t, dx_t, *off, batch, times.uniform, step)
        loss_off, residual, metrics = self.off_diagonal(
            restrict(net, strata.off_diagonal), at, restrict(teacher, strata.off_diagonal)
        )

        # Before weights and ramp, which the loss has and hides.
        terms = jnp.mean(loss_on), jnp.mean(loss_off)
        metrics = {"diagonal_loss": terms[0], "off_diagonal_loss": terms[1], **metrics}
        if residual is not None:
            metrics["residual_norm_sq"] = jnp.mean(squared_norm(residual))

        degree, weighted = 1.0, 1 - self.weight_power
        if self.weight == "residual":
            loss_off = self._weigh(squared_norm(residual)) * loss_off
            degree = strata.merge(jnp.ones_like(loss_on), jnp.full_like(loss_off, weighted))
        elif self.weight == "adaptive":
            loss_on, loss_off = (self._weigh(loss) * loss for loss in (loss_on, loss_off))
            degree = weighted
        ramp = self.ramp(step).astype(x1.dtype)
        return LossOut(strata.merge(loss_on, ramp * loss_off), metrics, terms, degree)


def diagonal_loss(net: Net, t: jax.Array, x_t: jax.Array, dx_t: jax.Array) -> jax.Array:
    """Flow matching, |F(t, t, x_t) - dx_t|^2, [B] (Lipman et al. 2023, eq. 9; Albergo & Vanden-Eijnden 2023)."""
    return squared_norm(net(t, t, x_t) - dx_t)


def velocity(net: Net, teacher: Net | None, t: jax.Array, x: jax.Array) -> jax.Array:
    """The velocity an objective takes for the truth, F(t, t, x) of the teacher or of the network itself. Like x.

    It carries a gradient: vhat is its stop-gradient.
    """
    source = net if teacher is None else teacher
    return source(t, t, x)
