"""What all objectives share: times, interpolation, the diagonal, warm-up and ramp, weights, metrics.

A flow-map objective adds only its off-diagonal loss (`FlowMapObjective.off_diagonal`).
"""

import abc
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgflow_jax import interpolant
from sgflow_jax.guidance import Guidance, unconditional
from sgflow_jax.interfaces import InputError, LabelledNet, LossOut, Net, expand_time, restrict, squared_norm
from sgflow_jax.times import Domain, Strata, TimeLaw

VELOCITY_TARGETS = ("pair", "batch")


class Points(NamedTuple):
    """Points of paths from noise to data. t: [b]. x_t, dx_t: [b, ...], the point at time t and its velocity."""

    t: jax.Array
    x_t: jax.Array
    dx_t: jax.Array


@dataclasses.dataclass(frozen=True)
class Objective(abc.ABC):
    """One training loss: objective(net, x0, x1, key, step=0, teacher=None) -> LossOut. Frozen and hashable.

    `draw` does everything that is random or needs the whole batch; `loss` is a pure function of its result. A subclass
    defines `unguided_loss`.

    The fields are the options a config may set.
    interpolant: "linear" or "trigonometric".
    time_law, logit_mean, logit_std: the distribution of each time, see `times.TimeLaw`. A published logit_mean may
        need its sign changed.
    velocity_target: the value used for dx_t. "pair" is the velocity of the example's own pair. "batch" is its
        conditional mean given x_t when the data are the batch (`interpolant.Interpolant.mean_velocity`): the same
        expected gradient with less noise. For a labelled network, the data are those of the example's class.
    guidance: W of classifier-free guidance, trained into the map so that one call is a guided step, see `guide`; 1 for
        none. Needs labels and model.label_dropout.
    guidance_start, guidance_end: guidance acts at times t from the first to the second only.
    """

    interpolant: str = "linear"
    time_law: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    velocity_target: str = "pair"
    guidance: float = 1.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0

    # Where the network learns F(t, u, x). Decides how it can be sampled (`sampling.METHODS`).
    domain = Domain.FORWARD
    # The numbers of `flow_map` sampling steps it is trained for; None for any.
    step_counts = None
    # Whether the true map is a stationary point. If False, it becomes one only as some step size goes to 0.
    exact = True
    # Whether a given velocity network may replace the model's own velocity (distillation).
    takes_teacher = False
    # Whether the loss is |F(t, u, x_t) - target|^2 (or the same with f) with no gradient through the target.
    regression = False
    # Whether gradients pass through one network call into another call that made its input.
    nested = False
    # The batch size on every device must be a multiple of this.
    batch_multiple = 1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{field.name} is {value}: use a finite number")
        interpolant.make(self.interpolant)
        self.make_law()  # rejects a bad law here, not in the middle of a trace
        self._one_of("velocity_target", VELOCITY_TARGETS)
        self.make_guidance()

    def _one_of(self, field: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, field)
        if value not in allowed:
            choice = f"one of {', '.join(allowed)}" if len(allowed) > 1 else repr(allowed[0])
            raise InputError(f"{field} of {type(self).__name__} is {value!r}: use {choice}")

    def make_law(self) -> TimeLaw:
        return TimeLaw(self.time_law, self.logit_mean, self.logit_std)

    def make_guidance(self) -> Guidance:
        return Guidance(self.guidance, self.guidance_start, self.guidance_end)

    def points(
        self, t: jax.Array, x0: jax.Array, x1: jax.Array, data: jax.Array, alike: jax.Array | None = None
    ) -> Points:
        """The points at times t [b] of the paths from x0 to x1 [b, ...].

        data: x1 of the whole batch [B, ...], for velocity_target "batch". alike: see `draw`, [b, B].
        """
        path = interpolant.make(self.interpolant)
        x_t, dx_t = path.sample(t, x0, x1)
        if self.velocity_target == "batch":
            dx_t = path.mean_velocity(t, x0, x1, data, alike)
        return Points(t, x_t, dx_t)

    def __call__(
        self,
        net: Net,
        x0: jax.Array,
        x1: jax.Array,
        key: jax.Array,
        step=0,
        teacher: Net | None = None,
        alike: jax.Array | None = None,
    ) -> LossOut:
        """The loss of a batch.

        net: the average velocity being trained. x0: noise [B, ...]. x1: data [B, ...]. key: for the times. step: the
        training step, for warm-up and schedules. teacher: a given velocity network, F(t, t, x), for distillation.
        alike: see `draw`. InputError for a teacher that the objective has no use for.
        """
        if teacher is not None and not self.takes_teacher:
            raise InputError(f"{type(self).__name__} takes no teacher: leave it out")
        return self.loss(net, self.draw(key, x0, x1, step, alike), teacher)

    def draw(self, key: jax.Array, x0: jax.Array, x1: jax.Array, step, alike: jax.Array | None = None) -> Any:
        """Everything the loss of a batch needs besides networks, as a pytree. By default `Points` at one time each.

        Every array has a row for each example, or for each example of one kind (diagonal, off-diagonal), in the order
        of the batch, so a part of the batch uses a part of each array. A scalar belongs to every part.
        alike: [B, B], whether datum j is from the distribution of example i: its class, or all for the null class. None
        without labels.
        """
        return self.points(self.make_law().single(key, len(x1), x1.dtype), x0, x1, x1, alike)

    def loss(self, net: Net, drawn: Any, teacher: Net | None) -> LossOut:
        """The loss of a batch or of a part of it. drawn: the result of `draw`, or a part of it."""
        guidance = self.make_guidance()
        if guidance.on:
            drawn = self.guide(net, drawn)
            teacher = None if teacher is None else guidance.of(teacher)
        return self.unguided_loss(net, drawn, teacher)

    def guide(self, net: LabelledNet, drawn: Any) -> Any:
        """`drawn` with the velocities of the guided field, the only change that guidance makes: dx_t becomes

            W dx_t + (1 - W) sg[F(t, t, x_t | null)]

        for examples with a class, and stays dx_t for those of the null class (Geng et al. 2025, arXiv 2505.13447,
        section 4.2). Then the objective stops at the flow map of v_null + W (v_c - v_null), see docs/objectives.md.
        InputError for a network without a null class.
        """
        return guided_points(self.make_guidance(), net, drawn)

    @abc.abstractmethod
    def unguided_loss(self, net: Net, drawn: Any, teacher: Net | None) -> LossOut:
        """`loss`, for velocities that need no further guidance."""


def guided_points(guidance: Guidance, net: LabelledNet, points: Points) -> Points:
    """See `Objective.guide`. net: for these points."""
    t, x_t, dx_t = points
    v_null = jax.lax.stop_gradient(unconditional(net)(t, t, x_t))

    guided = guidance.mix(t, dx_t, v_null)

    return Points(t, x_t, jnp.where(expand_time(net.has_class(), x_t), guided, dx_t))


class OffDiagonal(NamedTuple):
    """Off-diagonal examples.

    t, u: [b]. x_t, dx_t: [b, ...], the point at time t and its velocity. uniform: [b] in [0, 1), for any further random
    choice. step: the training step.
    """

    t: jax.Array
    u: jax.Array
    x_t: jax.Array
    dx_t: jax.Array
    uniform: jax.Array
    step: jax.Array | int

    @property
    def point(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(t, u, x_t), where the network is evaluated."""
        return self.t, self.u, self.x_t


class Drawn(NamedTuple):
    """A batch split into its diagonal (t = u) and off-diagonal examples."""

    diagonal: Points
    off_diagonal: OffDiagonal


class OffDiagonalLoss(NamedTuple):
    """The result of `FlowMapObjective.off_diagonal`.

    per_example: [b]. residual: [b, ...], zero at the true map and free of the noise of dx_t; None if not computed.
    metrics: scalars, means of squared norms, in addition to those that every objective has.
    """

    per_example: jax.Array
    residual: jax.Array | None = None
    metrics: dict[str, jax.Array] = {}

    @classmethod
    def square(cls, residual: jax.Array) -> "OffDiagonalLoss":
        """The loss |residual|^2."""
        return cls(squared_norm(residual), residual)


@dataclasses.dataclass(frozen=True)
class FlowMapObjective(Objective):
    """Flow matching on the diagonal t = u plus an off-diagonal loss on t != u, which a subclass defines.

    prob_diagonal: the exact share of the batch with t = u (see `times.Strata`).
    warmup_steps, ramp_steps: the off-diagonal loss has weight 0 for warmup_steps steps, then grows linearly to 1 over
        ramp_steps. While the velocity on the diagonal is wrong, some off-diagonal losses are not bounded below.
    direction: "forward" trains t < u, from noise to data. "both" also trains the inverse map, t > u, on half the pairs.
    weight: of each example, without gradient. "none". "residual": 1 / (|R|^2 + c)^p off the diagonal, where R is the
        residual without the noise of dx_t. It is a function of (t, u, x_t), so it keeps the stationary point.
        "adaptive" (mean_flow and improved_mean_flow): 1 / (loss + c)^p everywhere, MeanFlow's own. It depends on dx_t,
        so it moves the stationary point.
    weight_power, weight_offset: p >= 0, and c > 0 in units of |x|^2, the sum over coordinates, as in the papers.

    A weighted loss has the size of |x|^(2 - 2p), so it is divided by D^(1-p), not by the number of coordinates D. With
    p = 1 it is MeanFlow's, undivided; with p = 0 it is the unweighted loss. With any p it is (loss / D) / (loss / D +
    c / D)^p, the same for any image size while c is small against the sums. "residual" leaves the diagonal unweighted,
    |x|^2 / D. So for p = 1 and any image size, a diagonal example contributes the mean square error of its coordinates
    and an off-diagonal one at most about 1. The off-diagonal gradient is D / (|R|^2 + c) times the unweighted one: as R
    falls it grows relative to the diagonal's, by at most D / c. weight_offset = D bounds that by 1.
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
        self.make_strata()  # rejects a share that no split has
        if self.warmup_steps < 0 or self.ramp_steps < 0:
            raise InputError(f"warmup_steps is {self.warmup_steps}, ramp_steps {self.ramp_steps}: use 0 or more steps")
        self._one_of("direction", self.directions)
        self._one_of("weight", self.weights)
        if self.weight_power < 0 or self.weight_offset <= 0:
            raise InputError(
                f"weight_power is {self.weight_power}, weight_offset {self.weight_offset}: use a power of 0 or more and"
                " a positive offset"
            )

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

    def draw(self, key, x0, x1, step, alike=None) -> Drawn:
        strata, dtype = self.make_strata(), x1.dtype
        on, off = strata.counts(len(x1))
        key_on, key_off, key_rest = jax.random.split(key, 3)

        def points(t, select):
            return self.points(t, select(x0), select(x1), x1, None if alike is None else select(alike))

        diagonal = points(self.make_law().single(key_on, on, dtype), strata.on_diagonal)

        t, u = self.draw_pair(key_off, off, dtype)
        _, x_t, dx_t = points(t, strata.off_diagonal)
        return Drawn(diagonal, OffDiagonal(t, u, x_t, dx_t, jax.random.uniform(key_rest, (off,), dtype), step))

    @abc.abstractmethod
    def off_diagonal(self, net: Net, examples: OffDiagonal, teacher: Net | None) -> OffDiagonalLoss:
        """The loss of the off-diagonal examples."""

    def ramp(self, step) -> jax.Array:
        """The weight of the off-diagonal loss at a training step, in [0, 1]."""
        since = jnp.asarray(step, jnp.float32) - self.warmup_steps
        return jnp.clip((since + 1) / (self.ramp_steps + 1), 0, 1)

    def _weigh(self, squares: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient((squares + self.weight_offset) ** -self.weight_power)

    def guide(self, net, drawn: Drawn) -> Drawn:
        strata, guidance, off = self.make_strata(), self.make_guidance(), drawn.off_diagonal

        diagonal = guided_points(guidance, restrict(net, strata.on_diagonal), drawn.diagonal)

        points = guided_points(guidance, restrict(net, strata.off_diagonal), Points(off.t, off.x_t, off.dx_t))
        return Drawn(diagonal, off._replace(dx_t=points.dx_t))

    def unguided_loss(self, net, drawn: Drawn, teacher):
        strata, off = self.make_strata(), drawn.off_diagonal

        loss_on = diagonal_loss(restrict(net, strata.on_diagonal), drawn.diagonal)

        loss_off, residual, metrics = self.off_diagonal(
            restrict(net, strata.off_diagonal), off, restrict(teacher, strata.off_diagonal)
        )

        # Before weights and ramp, which would hide how large the two parts are.
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
        ramp = self.ramp(off.step).astype(off.x_t.dtype)
        return LossOut(strata.merge(loss_on, ramp * loss_off), metrics, terms, degree)


def diagonal_loss(net: Net, points: Points) -> jax.Array:
    """Flow matching, |F(t, t, x_t) - dx_t|^2, [b] (Lipman et al. 2023, eq. 9; Albergo & Vanden-Eijnden 2023)."""
    return squared_norm(net(points.t, points.t, points.x_t) - points.dx_t)


def velocity(net: Net, teacher: Net | None, t: jax.Array, x: jax.Array) -> jax.Array:
    """The velocity an objective takes for the true one, like x: F(t, t, x) of the teacher, or of the network itself.

    It carries a gradient; vhat is its stop-gradient.
    """
    source = net if teacher is None else teacher
    return source(t, t, x)
