"""Detects divergence: values that are not finite, a loss that explodes, a gradient far above its usual size."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 100  # steps in a running median
RECENT = 10  # the newest of them, compared with it: one outlying batch is clipped, and does not mean divergence


class Limits(NamedTuple):
    """max_abs_loss: the largest absolute value allowed for a term of a batch's loss, per coordinate. divergence_factor:
    a run diverges when, for both the gradient norm and the largest term, the median over RECENT steps exceeds this many
    times the median over WINDOW; 0 turns this check off."""

    max_abs_loss: float
    divergence_factor: float


# The first of several faults in one step is reported.
FAULTS = (
    "the loss is not finite",
    "the gradient is not finite",
    "the parameters are not finite",
    "the loss is beyond train.max_abs_loss",
    "the gradient and the loss are far above their running medians",
)
# Finite, because a run under jax_debug_infs would stop at infinity.
_UNSEEN = np.finfo(np.float32).max


@flax.struct.dataclass
class Guard:
    """The history of a run. grad_norms: float32 [WINDOW], of the last steps; _UNSEEN for steps not taken yet. losses:
    likewise, the absolute value of the loss's largest term.

    fault_step: int32, the step of the first fault, or -1. fault: int32, its index in FAULTS.
    """

    grad_norms: jax.Array
    losses: jax.Array
    fault_step: jax.Array
    fault: jax.Array

    @classmethod
    def fresh(cls) -> "Guard":
        """An empty history, as numpy arrays."""
        unseen = np.full(WINDOW, _UNSEEN, np.float32)
        # Each array has its own buffer, so that all of them can be donated.
        return cls(unseen, unseen.copy(), np.array(-1, np.int32), np.array(0, np.int32))

    def watch(
        self, step: jax.Array, terms: jax.Array, grad_norm: jax.Array, params_norm: jax.Array, limits: Limits
    ) -> "Guard":
        """The guard after step number `step` (from 1). Keeps the first fault.

        terms: [n], the parts of the batch's loss, per coordinate, before weights and ramp. A bounded weight would turn
        a loss of any size into about 1, and a ramp could turn it into 0.
        """
        loss = jnp.max(jnp.abs(terms))
        not_finite = [~jnp.isfinite(a) for a in (loss, grad_norm, params_norm)]
        exploded = loss > limits.max_abs_loss
        place = (step - 1) % WINDOW
        grad_norms, losses = self.grad_norms.at[place].set(grad_norm), self.losses.at[place].set(loss)
        diverges = _diverges(grad_norms, losses, place, limits.divergence_factor)
        faults = jnp.stack([*not_finite, exploded, diverges])
        first = (self.fault_step < 0) & jnp.any(faults)

        return Guard(
            grad_norms,
            losses,
            jnp.where(first, step, self.fault_step),
            jnp.where(first, jnp.argmax(faults).astype(jnp.int32), self.fault),
        )


def _diverges(grad_norms: jax.Array, losses: jax.Array, place: jax.Array, factor: float) -> jax.Array:
    """Needs both: sgflow's loss may change its sign, and a gradient may grow while the loss falls."""
    if not factor:
        return jnp.array(False)
    recent = (place - jnp.arange(RECENT)) % WINDOW
    # Absolute values, since older checkpoints hold losses with their sign.
    far = [jnp.median(a[recent]) > factor * jnp.median(a) for a in (grad_norms, jnp.abs(losses))]
    return far[0] & far[1] & jnp.all(jnp.abs(losses) < _UNSEEN)
