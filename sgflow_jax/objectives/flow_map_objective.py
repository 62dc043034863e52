"""What all objectives of a flow map share: half of each batch on the diagonal, warm-up and ramp, weights, metrics.

A subclass adds only its off-diagonal loss (`FlowMapObjective.off_diagonal`).
"""

import abc
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError, LossOut, Net, in_training, restrict, squared_norm, without_dropout
from sgflow_jax.objectives.base import Objective, Points, diagonal_loss, guided_points
from sgflow_jax.times import LAWS, PAIRINGS, Domain, PairLaw, Strata, TimeLaw


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
    pairing, end_law, end_logit_mean, end_logit_std: how the times t <= u off the diagonal are made of two times a and
        b, see `times.PairLaw`. a has time_law; b has end_law, which is "same" as time_law or another law, with its own
        logit_mean and logit_std. "clipped" puts the examples with b <= a on the diagonal, besides the share
        prob_diagonal: there mean_flow, improved_mean_flow and sgflow reduce to flow matching, and every other loss is
        0 for any network. MeanFlow's public code has such examples too.
    diagonal_law, diagonal_logit_mean, diagonal_logit_std: the law of t on the diagonal. "same" as time_law, "start":
        that of t of a pair (MeanFlow's and improved MeanFlow's public code, with sorted pairs), or another law.
    direction: "forward" trains t < u, from noise to data. "both" also trains the inverse map, t > u, on half the pairs.
    weight: of each example, without gradient. "none". "residual": 1 / (|R|^2 + c)^p off the diagonal, where R is the
        residual without the noise of dx_t. It is a function of (t, u, x_t), so it keeps the stationary point.
        "adaptive" (mean_flow and improved_mean_flow): 1 / (loss + c)^p everywhere, MeanFlow's own. It depends on dx_t,
        so it moves the stationary point. "learned": exp(-w) loss + w everywhere, the loss per coordinate, with w(t, u)
        trained too (Boffi et al. 2025, after Karras et al. 2024). At its best w is the logarithm of the mean loss at t
        and u. It depends on the times alone, so it keeps the stationary point; it needs a loss that is not negative.
        It raises the share of self-distillation as that falls: use prob_diagonal 0.75 with it, as was published.
    dropout: also "diagonal": in flow matching on t = u only (Boffi et al. 2025).
    weight_power, weight_offset: p >= 0, and c > 0 in units of |x|^2, the sum over coordinates, as in the papers.

    A weighted loss has the size of |x|^(2 - 2p), so it is divided by D^(1-p), not by the number of coordinates D. With
    p = 1 it is MeanFlow's, undivided; with p = 0 it is the unweighted loss. With any p it is (loss / D) / (loss / D +
    c / D)^p, the same for any image size while c is small against the sums. "residual" leaves the diagonal unweighted,
    |x|^2 / D. So for p = 1 and any image size, a diagonal example contributes the mean square error of its coordinates
    and an off-diagonal one at most about 1. The off-diagonal gradient is D / (|R|^2 + c) times the unweighted one: as R
    falls it grows relative to the diagonal's, by at most D / c. weight_offset = D bounds that by 1.
    """

    prob_diagonal: float = 0.5
    pairing: str = "sorted"
    end_law: str = "same"
    end_logit_mean: float = 0.0
    end_logit_std: float = 1.0
    diagonal_law: str = "same"
    diagonal_logit_mean: float = 0.0
    diagonal_logit_std: float = 1.0
    warmup_steps: int = 0
    ramp_steps: int = 0
    direction: str = "forward"
    weight: str = "none"
    weight_power: float = 1.0
    weight_offset: float = 1.0

    directions = ("forward", "both")
    pairings = PAIRINGS
    weights = ("none", "residual", "learned")
    dropouts = ("everywhere", "predictions", "diagonal")

    def __post_init__(self):
        super().__post_init__()
        self.make_strata()  # rejects a share that no split has
        if self.warmup_steps < 0 or self.ramp_steps < 0:
            raise InputError(f"warmup_steps is {self.warmup_steps}, ramp_steps {self.ramp_steps}: use 0 or more steps")
        self._one_of("direction", self.directions)
        self._one_of("pairing", self.pairings)
        self._one_of("end_law", ("same", *LAWS))
        self._one_of("diagonal_law", ("same", "start", *LAWS))
        self.make_pair_law()
        self.make_diagonal_law()
        if (self.pairing, self.end_law) != ("sorted", "same") and self.domain is not Domain.FORWARD:
            raise InputError(
                f"pairing is {self.pairing!r} and end_law {self.end_law!r}, but {type(self).__name__} trains "
                f"{self.domain.value}: use 'sorted' and 'same'"
            )
        self._one_of("weight", self.weights)
        if self.weight_power < 0 or self.weight_offset <= 0:
            raise InputError(
                f"weight_power is {self.weight_power}, weight_offset {self.weight_offset}: use a power of 0 or more and"
                " a positive offset"
            )

    @property
    def domain(self) -> Domain:
        return Domain.BOTH if self.direction == "both" else Domain.FORWARD

    @property
    def learns_weight(self) -> bool:
        return self.weight == "learned"

    def make_pair_law(self) -> PairLaw:
        end = self._other_law(self.end_law, self.end_logit_mean, self.end_logit_std, "end_")
        return PairLaw(self.make_law(), end, self.pairing)

    def make_diagonal_law(self) -> TimeLaw:
        """The law of t on the diagonal, unless diagonal_law is "start"."""
        return self._other_law(self.diagonal_law, self.diagonal_logit_mean, self.diagonal_logit_std, "diagonal_")

    def _other_law(self, name: str, logit_mean: float, logit_std: float, prefix: str) -> TimeLaw:
        law = TimeLaw(name if name in LAWS else "uniform", logit_mean, logit_std, prefix)  # rejects bad numbers
        return law if name in LAWS else self.make_law()

    def make_strata(self) -> Strata:
        return Strata.from_probability(self.prob_diagonal)

    @property
    def batch_multiple(self) -> int:
        return self.make_strata().group

    def draw_pair(self, key: jax.Array, n: int, dtype) -> tuple[jax.Array, jax.Array]:
        """The off-diagonal times (t, u), both [n]."""
        law = self.make_pair_law()
        return law.unordered(key, n, dtype) if self.direction == "both" else law.draw(key, n, dtype)

    def draw_diagonal(self, key: jax.Array, n: int, dtype) -> jax.Array:
        """The times t = u on the diagonal, [n]."""
        if self.diagonal_law == "start":
            return self.draw_pair(key, n, dtype)[0]
        return self.make_diagonal_law().single(key, n, dtype)

    def draw(self, key, x0, x1, step, alike=None) -> Drawn:
        strata, dtype = self.make_strata(), x1.dtype
        on, off = strata.counts(len(x1))
        key_on, key_off, key_rest = jax.random.split(key, 3)

        def points(t, select):
            return self.points(t, select(x0), select(x1), x1, None if alike is None else select(alike))

        diagonal = points(self.draw_diagonal(key_on, on, dtype), strata.on_diagonal)

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

        net_on, net_off = restrict(net, strata.on_diagonal), restrict(net, strata.off_diagonal)
        if self.dropout == "diagonal":
            net_off = without_dropout(net_off)

        loss_on = diagonal_loss(net_on, drawn.diagonal)

        loss_off, residual, metrics = self.off_diagonal(net_off, off, restrict(teacher, strata.off_diagonal))

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
        elif self.weight == "learned":
            D = off.x_t[0].size
            t = drawn.diagonal.t
            w_on, w_off = in_training(net_on).log_loss(t, t), in_training(net_off).log_loss(off.t, off.u)

            loss_on, loss_off = (jnp.exp(-w) * loss / D + w for w, loss in ((w_on, loss_on), (w_off, loss_off)))
            degree = 0.0
        ramp = self.ramp(off.step).astype(off.x_t.dtype)
        return LossOut(strata.merge(loss_on, ramp * loss_off), metrics, terms, degree)
