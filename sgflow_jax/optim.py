"""The optimiser and the averages of the parameters, built from optax."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgflow_jax.interfaces import InputError

SCHEDULES = ("constant", "cosine", "inverse_sqrt")
OPTIMISERS = {"adam": optax.scale_by_adam, "radam": optax.scale_by_radam}
WARMUPS = ("steps", "half_life", "none")


def learning_rate(
    peak: float, schedule: str, warmup_steps: int, num_steps: int, decay_start: int = 1
) -> optax.Schedule:
    """The learning rate at each step n, from 0: linear from 0 to `peak` over warmup_steps, then by the schedule.

    schedule: "constant"; "cosine", to 0 at num_steps; or "inverse_sqrt", constant up to step decay_start, then
    peak sqrt(decay_start / n) (Karras et al. 2024, arXiv 2312.02696, eq. 67). InputError for any other, or a decay that
    starts within the warm-up.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"unknown optim.schedule {schedule!r}: use one of {', '.join(SCHEDULES)}")
    if schedule == "inverse_sqrt" and decay_start < warmup_steps:
        raise InputError(
            f"optim.decay_start is {decay_start}, within the warm-up: use at least optim.warmup_steps = {warmup_steps}"
        )

    def inverse_sqrt(since):
        return peak * jnp.sqrt(decay_start / jnp.maximum(since + warmup_steps, decay_start))

    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, max(num_steps - warmup_steps, 1)),
        "inverse_sqrt": inverse_sqrt,
    }[schedule]
    # Starts above 0, so that the first step moves: step 0 takes peak / (warmup_steps + 1).
    warmup = optax.linear_schedule(peak / (warmup_steps + 1), peak, max(warmup_steps, 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def optimiser(
    name: str, schedule: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015), or "radam", which rectifies its first steps (Liu et al. 2020).

    weight_decay: every parameter loses this share of itself times the learning rate at a step, whatever its gradient
    (AdamW; Loshchilov & Hutter 2019). clip_norm: gradients are scaled down to this global norm; 0: not. InputError for
    another name.
    """
    if name not in OPTIMISERS:
        raise InputError(f"unknown optim.name {name!r}: use one of {', '.join(OPTIMISERS)}")
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    direction = OPTIMISERS[name](b1=b1, b2=b2, eps=eps)
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    return optax.chain(clip, optax.chain(direction, *decay, optax.scale_by_learning_rate(schedule)))


def updates(state: optax.OptState) -> int:
    """How many updates an optimiser of this module has made: where its learning rate is in its schedule."""
    scheduled = lambda part: isinstance(part, optax.ScaleByScheduleState)  # noqa: E731
    (found,) = filter(scheduled, jax.tree.leaves(state, is_leaf=scheduled))
    return int(found.count)


@dataclasses.dataclass(frozen=True)
class Averaging:
    """How exponential moving averages of the parameters are made. InputError for two of one decay.

    decay: of the first average at a step, in [0, 1). more: those of further ones. warmup: the decay d_n at step n, from
    0, which grows to the final decay d:
        "steps": d_n = min(d, (1 + n) / (10 + n)). The average covers at most about a tenth of the run, and soon forgets
            the initial parameters.
        "half_life": d_n = min(d, 2^(-20 / n)), a half-life of at most a twentieth of the steps before (the ramp-up
            ratio 0.05 of the code of Karras et al. 2022). The average begins with the parameters after step 0.
        "none": d_n = d. The average begins with the initial parameters (the code of Geng et al. 2025).
    """

    decay: float
    more: tuple[float, ...] = ()
    warmup: str = "steps"

    def __post_init__(self):
        if len(set(self.more) | {self.decay}) <= len(self.more):
            raise InputError(
                f"optim.more_ema_decays is {self.more} beside {self.decay:g}, the first average's: leave out the "
                "repeats"
            )

    def init_more(self, params: optax.Params) -> dict[str, optax.Params]:
        """The further averages before the first step, by `average_names`."""
        return {name: jax.tree.map(jnp.copy, params) for name in average_names(self.more)}

    def update_more(self, averages: dict[str, optax.Params], params: optax.Params, step: jax.Array) -> dict:
        """As `update`, for the further averages."""
        decays = zip(average_names(self.more), self.more, strict=True)
        return {name: self._updated(averages[name], params, step, decay) for name, decay in decays}

    def update(self, average: optax.Params, params: optax.Params, step: jax.Array) -> optax.Params:
        """The first average once step number `step` (from 0) has produced `params`."""
        return self._updated(average, params, step, self.decay)

    def _updated(self, average, params, step, decay):
        warm = {
            "steps": lambda: (1 + step) / (10 + step),
            "half_life": lambda: jnp.exp2(-20 / jnp.asarray(step, jnp.float32)),
            "none": lambda: 1.0,
        }[self.warmup]()
        return optax.incremental_update(params, average, 1 - jnp.minimum(decay, warm))


def average_names(decays: Sequence[float]) -> tuple[str, ...]:
    """The names of further averages, like ema_0.9996; the first average is called ema."""
    return tuple(f"ema_{np.format_float_positional(decay, trim='-')}" for decay in decays)


def decay_of(half_life: float, batch_size: int) -> float:
    """The decay at a step of an average with this half-life, in examples."""
    return 0.5 ** (batch_size / half_life)
