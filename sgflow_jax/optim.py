"""The optimiser and the averages of the parameters, built from optax."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgflow_jax.interfaces import InputError

SCHEDULES = ("constant", "cosine")
WARMUPS = ("steps", "half_life", "none")


def learning_rate(peak: float, schedule: str, warmup_steps: int, num_steps: int) -> optax.Schedule:
    """The learning rate at each step: linear from 0 to `peak` over warmup_steps, then constant or a cosine to 0.

    schedule: "constant", or "cosine", which ends at num_steps. InputError for any other.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"unknown optim.schedule {schedule!r}: use one of {', '.join(SCHEDULES)}")
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, max(num_steps - warmup_steps, 1)),
    }[schedule]
    # Starts above 0, so that the first step moves: step 0 takes peak / (warmup_steps + 1).
    warmup = optax.linear_schedule(peak / (warmup_steps + 1), peak, max(warmup_steps, 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def adam(schedule: optax.Schedule, b1: float, b2: float, eps: float, clip_norm: float) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) on gradients clipped to the global norm clip_norm."""
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(schedule, b1=b1, b2=b2, eps=eps))


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
