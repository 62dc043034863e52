"""The training state and one optimiser step as a pure function."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics

from sgflow_jax import data, guidance, optim
from sgflow_jax.data import augmentation
from sgflow_jax.guard import Guard, Limits
from sgflow_jax.models import BoundNet
from sgflow_jax.models.trained import BoundTrainedNet, LossWeight
from sgflow_jax.objectives.base import Objective

_AUGMENT = 4  # folded into the key of a step; the four keys it is split into are its numbers 0 to 3


@flax.struct.dataclass
class TrainState:
    """The training state. step: int32, the number of steps taken. average: of the parameters (EMA), like them.
    more_averages: further ones by name, see `optim.Averaging`.

    rollbacks: int32, how often the run returned to an earlier state, each time with a lower learning rate. skipped:
    int32, the number of batches left out by these rollbacks; step number n (from 0) takes batch n + skipped.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    average: Any
    rollbacks: jax.Array
    skipped: jax.Array
    more_averages: dict[str, Any] = flax.struct.field(default_factory=dict)

    @property
    def trained(self) -> Any:
        """What the optimiser trains."""
        return self.params

    def with_trained(self, trained: Any) -> "TrainState":
        return self.replace(params=trained)


class Trained(NamedTuple):
    """What the optimiser trains where the loss has a learned weight: the network's parameters and that weight's."""

    params: Any
    loss_weight: Any


@flax.struct.dataclass
class WeighedState(TrainState):
    """The training state with a learned weight of the loss. loss_weight: the parameters of `LossWeight`, which belong
    to no network that is averaged or sampled."""

    loss_weight: Any = None  # never; but a field after one with a default has to have one

    @property
    def trained(self) -> Trained:
        return Trained(self.params, self.loss_weight)

    def with_trained(self, trained: Trained) -> "WeighedState":
        return self.replace(params=trained.params, loss_weight=trained.loss_weight)


@flax.struct.dataclass
class Monitor:
    """What the training loop watches. averages: of the metrics, since the last log line."""

    averages: clu_metrics.Collection
    guard: Guard


class Seen(NamedTuple):
    """The parts of a batch's loss, per coordinate. metrics: for the log. terms: for the guard, those of `LossOut`, or
    the loss itself if there are none."""

    metrics: dict[str, jax.Array]
    terms: tuple[jax.Array, ...]


class Examples(NamedTuple):
    """The inputs of a batch's loss. drawn: the result of `Objective.draw`. label: [B], of the null class for some.
    dropout_keys: [B]. augment: [B, dimension], what was done to each image, or None."""

    drawn: Any
    label: jax.Array
    dropout_keys: jax.Array
    augment: jax.Array | None = None

    def parts(self, count: int, multiple: int) -> "Examples":
        """Splits the batch into `count` interleaved parts, stacked along a new first axis. `multiple` consecutive
        examples stay together, so each part keeps the objective's whole groups, and examples from every device."""
        size = len(self.label)

        def split(a):
            if not a.ndim:
                return jnp.broadcast_to(a, (count,))
            block = len(a) * multiple // size  # an array may have rows for one kind of example only
            return jnp.moveaxis(a.reshape(-1, count, block, *a.shape[1:]), 1, 0).reshape(count, -1, *a.shape[1:])

        return jax.tree.map(split, self)


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One optimiser step: step(state, monitor, batch, key, teacher=None) -> (state, monitor).

    batch: "x" [B, ...] and "label" [B], as `data.Source.batch` gives them. key: of the run; each step folds in its
    number. teacher: the trained network whose velocity is distilled; it gets all labels of the batch. rollback_factor:
    multiplies the learning rate, once for every rollback. microbatches: the number of parts whose gradients are
    computed one after the other and averaged, which gives the gradient of the batch. gather: collects sharded
    parameters, once a step. augment: the probability of `augmentation.augmented`; 0: none.
    """

    model: nn.Module
    objective: Objective
    optimiser: optax.GradientTransformation
    averaging: optim.Averaging
    limits: Limits
    rollback_factor: float
    microbatches: int = 1
    gather: Callable[[Any], Any] = lambda params: params
    augment: float = 0.0

    def init(self, key: jax.Array, shape: tuple[int, ...]) -> TrainState:
        """The state before the first step, for examples of `shape`."""
        t, label = jnp.zeros(1), jnp.zeros(1, jnp.int32)
        params = self.model.init(key, t, t, jnp.zeros((1, *shape)), label)["params"]
        return self.begin(params, jax.tree.map(jnp.copy, params))

    def begin(self, params, average) -> TrainState:
        """The state before the first step, with these parameters and this average of them."""
        none = jnp.zeros((), jnp.int32)
        more = self.averaging.init_more(average)
        if not self.objective.learns_weight:
            return TrainState(none, params, self.optimiser.init(params), average, none, none, more)
        t = jnp.zeros(1)
        trained = Trained(params, LossWeight().init(jax.random.key(0), t, t)["params"])  # all 0, whatever the key
        opt_state = self.optimiser.init(trained)
        return WeighedState(none, params, opt_state, average, none, none, more, trained.loss_weight)

    def init_monitor(self, batch: dict[str, Any], state: TrainState) -> Monitor:
        """An empty monitor, with averages for the metrics that the objective returns."""
        values = jax.eval_shape(lambda *args: self._update(*args, None)[1], state, batch, jax.random.key(0))
        collection = clu_metrics.Collection.create(**{k: clu_metrics.Average.from_output(k) for k in values})
        # Each counter has its own buffer, so that all of them can be donated.
        averages = jax.tree.map(lambda a: np.array(a), collection.empty())
        return Monitor(averages, Guard.fresh())

    def _examples(self, batch, key, step) -> Examples:
        key_noise, key_times, key_dropout, key_label = jax.random.split(key, 4)
        x1, own, augment = data.to_float(batch["x"]), batch["label"], None
        if self.augment:
            key_augment = jax.random.fold_in(key, _AUGMENT)
            x1, augment = augmentation.augmented(key_augment, x1, self.augment, self.model.augment_dim)
        x0 = jax.random.normal(key_noise, x1.shape, x1.dtype)
        classes, label, alike = self.model.num_classes, own, None
        if classes:
            label, alike = guidance.with_null(key_label, own, self.model.label_dropout, classes)
        if augment is not None:  # the label tells their distributions apart
            same = jnp.all(augment[:, None] == augment[None], axis=-1)
            alike = same if alike is None else alike & same
        drawn = self.objective.draw(key_times, x0, x1, step, alike)
        return Examples(drawn, label, jax.random.split(key_dropout, len(x1)), augment)

    def loss(self, trained, part: Examples, coordinates: int, teacher: BoundNet | None, average=None):
        """(loss, `Seen`) of a batch or a part of it. trained: the network's parameters, or `Trained`. coordinates: of
        one example. average: of the parameters, where targets are made with it."""
        params, loss_weight = trained if isinstance(trained, Trained) else (trained, None)
        net = BoundTrainedNet(self.model, params, part.label, part.dropout_keys, part.augment, average, loss_weight)
        teacher = None if teacher is None else teacher.replace(label=part.label, augment=part.augment)
        out = self.objective.loss(net, part.drawn, teacher)

        # The objective sums over coordinates. Per coordinate, clipping, Adam's eps and logs mean the same for any image
        # size. `degree` says how much of that a weight has already done.
        terms = out.terms or (jnp.mean(out.per_example),)
        seen = jax.tree.map(lambda sum: sum / coordinates, Seen(out.metrics, terms))
        return jnp.mean(out.per_example * coordinates ** (1 - out.degree)) / coordinates, seen

    def gradient(self, trained, state: TrainState, batch, key, teacher: BoundNet | None = None):
        """((loss, `Seen`), gradient) of a batch, at `trained`, which is like state.trained."""
        examples = self._examples(batch, jax.random.fold_in(key, state.step + state.skipped), state.step)

        average = self.gather(state.average) if self.objective.target == "average" else None

        def gradient_of(part):
            return jax.value_and_grad(self.loss, has_aux=True)(trained, part, batch["x"][0].size, teacher, average)

        if self.microbatches == 1:
            return gradient_of(examples)
        parts = examples.parts(self.microbatches, self.objective.batch_multiple)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient_of, jax.tree.map(lambda a: a[0], parts)))
        total, _ = jax.lax.scan(lambda sum, part: (jax.tree.map(jnp.add, sum, gradient_of(part)), None), zeros, parts)
        return jax.tree.map(lambda sum: sum / self.microbatches, total)

    def _update(self, state: TrainState, batch, key, teacher: BoundNet | None):
        (loss, seen), grads = self.gradient(self.gather(state.trained), state, batch, key, teacher)
        updates, opt_state = self.optimiser.update(grads, state.opt_state, state.trained)
        updates = optax.tree.scale(self.rollback_factor**state.rollbacks, updates)
        new = state.with_trained(optax.apply_updates(state.trained, updates))
        average = self.averaging.update(state.average, new.params, state.step)
        more = self.averaging.update_more(state.more_averages, new.params, state.step)

        metrics = {"loss": loss, **seen.metrics, "grad_norm": optax.tree.norm(grads)}
        new = new.replace(step=state.step + 1, opt_state=opt_state, average=average, more_averages=more)
        return new, metrics, jnp.stack(seen.terms)

    def __call__(
        self, state: TrainState, monitor: Monitor, batch, key, teacher: BoundNet | None = None
    ) -> tuple[TrainState, Monitor]:
        new, metrics, terms = self._update(state, batch, key, teacher)

        averages = monitor.averages.merge(type(monitor.averages).single_from_model_output(**metrics))
        # A weight may make the loss itself not finite.
        watched = jnp.where(jnp.isfinite(metrics["loss"]), terms, metrics["loss"])
        guard = monitor.guard.watch(new.step, watched, metrics["grad_norm"], optax.tree.norm(new.params), self.limits)
        return new, Monitor(averages, guard)


def several(step: Callable, count: int) -> Callable:
    """`count` steps in one call, like `step` but with batches stacked along a new first axis [count, B, ...]."""
    if count == 1:
        return step

    def run(state, monitor, batches, key, teacher=None):
        def body(carry, batch):
            return step(*carry, batch, key, teacher), None

        return jax.lax.scan(body, (state, monitor), batches)[0]

    return run
