"""The optimiser and the average of the parameters, both optax's."""

import optax

from sgflow_jax.interfaces import InputError

SCHEDULES = ("constant", "cosine")


def learning_rate(peak: float, schedule: str, warmup_steps: int, num_steps: int) -> optax.Schedule:
    """The learning rate at each step: linear from 0 to `peak` over warmup_steps, then constant or a cosine to 0."""
    if schedule not in SCHEDULES:
        raise InputError(f"unknown optim.schedule {schedule!r}: use one of {', '.join(SCHEDULES)}")
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, max(num_steps - warmup_steps, 1)),
    }[schedule]
    # Counted so that the first step already moves: step 0 takes peak / (warmup_steps + 1).
    warmup = optax.linear_schedule(peak / (warmup_steps + 1), peak, max(warmup_steps, 1))
    return optax.join_schedules([warmup, after], [warmup_steps])


def adam(schedule: optax.Schedule, b1: float, b2: float, clip_norm: float) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) on gradients clipped to the global norm clip_norm."""
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(schedule, b1=b1, b2=b2))


def parameter_average(decay: float) -> optax.GradientTransformation:
    """The exponential moving average of the parameters, as a transformation: update(params, state) -> (average, state).

    Bias-corrected, which is its warm-up: after n steps the weights of the n parameter vectors sum to 1 and the initial
    zeros have none.
    """
    return optax.ema(decay, debias=True)


def current_average(state: optax.EmaState, decay: float) -> optax.Params:
    """The bias-corrected average held in a state of `parameter_average(decay)` after at least one update."""
    return optax.tree.bias_correction(state.ema, decay, state.count)
