"""The training state and one optimiser step as a pure function."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics

from sgflow_jax import data, optim
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective

# What can stop a run, in the order of precedence within a step.
FAULTS = ("the loss is not finite", "the gradient is not finite", "the parameters are not finite", "the loss diverges")


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds. step: int32, the number of steps taken. average: of the parameters (EMA), like them."""

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    average: Any


@flax.struct.dataclass
class Monitor:
    """What the loop watches. averages: since the last line of the log. The first fault is kept for good.

    fault_step: int32, the step of the first fault, -1 without. fault: int32, its index in FAULTS.
    """

    averages: clu_metrics.Collection
    fault_step: jax.Array
    fault: jax.Array


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """One optimiser step: step(state, monitor, batch, key, teacher=None) -> (state, monitor).

    batch: "x" [B, ...] as `data.Source.batch` gives it, "label" [B]. key: of the run; each step folds its number in.
    teacher: the trained network whose velocity is distilled; it sees the labels of the batch.
    """

    model: nn.Module
    objective: Objective
    optimiser: optax.GradientTransformation
    ema_decay: float
    max_abs_loss: float

    def init(self, key: jax.Array, shape: tuple[int, ...]) -> TrainState:
        """The state before the first step, for examples of `shape`."""
        t, label = jnp.zeros(1), jnp.zeros(1, jnp.int32)
        params = self.model.init(key, t, t, jnp.zeros((1, *shape)), label)["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, self.optimiser.init(params), jax.tree.map(jnp.copy, params))

    def init_monitor(self, batch: dict[str, Any], state: TrainState) -> Monitor:
        """A monitor that has seen nothing. The names of the averages are those the objective returns."""
        values = jax.eval_shape(lambda *args: self._update(*args, None)[1], state, batch, jax.random.key(0))
        collection = clu_metrics.Collection.create(**{k: clu_metrics.Average.from_output(k) for k in values})
        # Each counter a buffer of its own, so that all of them can be donated.
        averages = jax.tree.map(lambda a: np.array(a), collection.empty())
        return Monitor(averages, np.array(-1, np.int32), np.array(0, np.int32))

    def _loss(self, params, state: TrainState, batch, key, teacher: BoundNet | None):
        key_noise, key_times, key_dropout = jax.random.split(jax.random.fold_in(key, state.step), 3)
        x1 = data.to_float(batch["x"])
        x0 = jax.random.normal(key_noise, x1.shape, x1.dtype)

        net = BoundNet(self.model, params, batch["label"], key_dropout)
        teacher = None if teacher is None else teacher.replace(label=batch["label"])
        out = self.objective(net, x0, x1, key_times, state.step, teacher)

        # The objective sums over coordinates; per coordinate, clipping and logs mean the same for any image size.
        coordinates = x1[0].size
        return jnp.mean(out.per_example) / coordinates, {k: v / coordinates for k, v in out.metrics.items()}

    def _update(self, state: TrainState, batch, key, teacher: BoundNet | None):
        (loss, metrics), grads = jax.value_and_grad(self._loss, has_aux=True)(state.params, state, batch, key, teacher)
        updates, opt_state = self.optimiser.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = optim.update_average(state.average, params, state.step, self.ema_decay)

        metrics = {"loss": loss, **metrics, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, opt_state, average), metrics

    def __call__(
        self, state: TrainState, monitor: Monitor, batch, key, teacher: BoundNet | None = None
    ) -> tuple[TrainState, Monitor]:
        new, metrics = self._update(state, batch, key, teacher)

        loss, grad_norm = metrics["loss"], metrics["grad_norm"]
        finite = [jnp.isfinite(a) for a in (loss, grad_norm, optax.tree.norm(new.params))]
        faults = jnp.stack([*(~a for a in finite), jnp.abs(loss) > self.max_abs_loss])
        first = (monitor.fault_step < 0) & jnp.any(faults)

        averages = monitor.averages.merge(type(monitor.averages).single_from_model_output(**metrics))
        return new, Monitor(
            averages,
            jnp.where(first, new.step, monitor.fault_step),
            jnp.where(first, jnp.argmax(faults).astype(jnp.int32), monitor.fault),
        )


def several(step: Callable, count: int) -> Callable:
    """`count` steps in one call: as `step`, with batches stacked along a new first axis [count, B, ...]."""
    if count == 1:
        return step

    def run(state, monitor, batches, key, teacher=None):
        def body(carry, batch):
            return step(*carry, batch, key, teacher), None

        return jax.lax.scan(body, (state, monitor), batches)[0]

    return run
