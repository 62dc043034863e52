"""What all objectives share: times, interpolation, guidance, the loss on the diagonal."""

import abc
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgflow_jax import interpolant
from sgflow_jax.guidance import Guidance, unconditional
from sgflow_jax.interfaces import (
    InputError,
    LabelledNet,
    LossOut,
    Net,
    expand_time,
    in_training,
    squared_norm,
    without_dropout,
)
from sgflow_jax.times import Domain, TimeLaw

VELOCITY_TARGETS = ("pair", "batch")
TARGETS = ("self", "average")


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
    time_law, logit_mean, logit_std: the distribution of each time, see `times.TimeLaw`. Noise is at time 0 here: a
        published logit_mean for noise at time 1, or mean of ln sigma, changes its sign.
    velocity_target: the value used for dx_t. "pair" is the velocity of the example's own pair. "batch" is its
        conditional mean given x_t when the data are the batch (`interpolant.Interpolant.mean_velocity`): the same
        expected gradient with less noise. For a labelled network, the data are those of the example's class.
    guidance: W of classifier-free guidance, trained into the map so that one call is a guided step, see `guide`; 1 for
        none. Needs labels and model.label_dropout.
    guidance_start, guidance_end: guidance acts at times t from the first to the second only.
    target: the network that makes the targets, which are all values behind a stop-gradient: "self", or "average", with
        the average of the parameters (as consistency models, CTM and shortcut models first had it).
    dropout: where activations are dropped, in a network that has dropout. "everywhere": targets have the mask of the
        prediction. "predictions": not in targets.
    """

    interpolant: str = "linear"
    time_law: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    velocity_target: str = "pair"
    guidance: float = 1.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    target: str = "self"
    dropout: str = "everywhere"

    # Where the network learns F(t, u, x). Decides how it can be sampled (`sampling.METHODS`).
    domain = Domain.FORWARD
    # The numbers of `flow_map` sampling steps it is trained for; None for any.
    step_counts = None
    # Whether the true map is a stationary point. If False, it becomes one as some step size goes to 0, or never.
    exact = True
    # Whether a given velocity network may replace the model's own velocity (distillation).
    takes_teacher = False
    # Whether the loss is |F(t, u, x_t) - target|^2 (or the same with f) with no gradient through the target.
    regression = False
    # Whether gradients pass through one network call into another call that made its input.
    nested = False
    # Whether values without gradient, besides the velocity of guidance, are made by `target_net`.
    has_targets = False
    # Whether it trains a weight of the loss too (`interfaces.TrainedNet.log_loss`).
    learns_weight = False
    dropouts = ("everywhere", "predictions")
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
        self._one_of("target", TARGETS)
        self._one_of("dropout", self.dropouts)
        guided = self.make_guidance().on
        if not (self.has_targets or guided):
            for field, default in {"target": "self", "dropout": "everywhere"}.items():
                if getattr(self, field) not in (default, "diagonal"):
                    raise InputError(
                        f"{field} of {type(self).__name__} is {getattr(self, field)!r}, but it has no target, a value "
                        f"without gradient: use {default!r}"
                    )

    def _one_of(self, field: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, field)
        if value not in allowed:
            choice = f"one of {', '.join(allowed)}" if len(allowed) > 1 else repr(allowed[0])
            raise InputError(f"{field} of {type(self).__name__} is {value!r}: use {choice}")

    def make_law(self) -> TimeLaw:
        return TimeLaw(self.time_law, self.logit_mean, self.logit_std)

    def make_guidance(self) -> Guidance:
        return Guidance(self.guidance, self.guidance_start, self.guidance_end)

    def target_net(self, net: Net) -> Net:
        """The network that makes the targets; see `target` and `dropout`. InputError if it must be in training and is
        not."""
        if self.target == "average":
            net = in_training(net).averaged()
        return net if self.dropout == "everywhere" else without_dropout(net)

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
            drawn = self.guide(self.target_net(net), drawn)
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


def diagonal_loss(net: Net, points: Points) -> jax.Array:
    """Flow matching, |F(t, t, x_t) - dx_t|^2, [b] (Lipman et al. 2023, eq. 9; Albergo & Vanden-Eijnden 2023)."""
    return squared_norm(net(points.t, points.t, points.x_t) - points.dx_t)


def velocity(net: Net, teacher: Net | None, t: jax.Array, x: jax.Array) -> jax.Array:
    """The velocity an objective takes for the true one, like x: F(t, t, x) of the teacher, or of the network itself.

    It carries a gradient; vhat is its stop-gradient.
    """
    source = net if teacher is None else teacher
    return source(t, t, x)
