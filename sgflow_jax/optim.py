"""The optimiser and the average of the parameters, built from optax."""

import jax
import jax.numpy as jnp
import optax

from sgflow_jax.interfaces import InputError

SCHEDULES = ("constant", "cosine")


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


def update_average(average: optax.Params, params: optax.Params, step: jax.Array, decay: float) -> optax.Params:
    """The exponential moving average of the parameters once step number `step` (from 0) has produced `params`.

    The decay warms up as min(decay, (1 + n) / (10 + n)). So the average covers at most about a tenth of the run, and
    soon forgets the initial parameters.
    """
    warm = (1 + step) / (10 + step)
    return optax.incremental_update(params, average, 1 - jnp.minimum(decay, warm))
