"""When a run has gone wrong: numbers that are not finite, a loss that explodes, a gradient far above what it was."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 100  # steps a running median looks back over
RECENT = 10  # of them, those that are compared with it: one batch far out is no divergence, and is clipped


class Limits(NamedTuple):
    """max_abs_loss: of each term of a batch's loss, per coordinate. divergence_factor: of gradient norm and largest
    term both, the median over RECENT steps may be this many times that over WINDOW; 0 does not look at medians."""

    max_abs_loss: float
    divergence_factor: float


# In the order of precedence within a step.
FAULTS = (
    "the loss is not finite",
    "the gradient is not finite",
    "the parameters are not finite",
    "the loss is beyond train.max_abs_loss",
    "the gradient and the loss are far above their running medians",
)
# Finite, or a run under jax_debug_infs would end at its first step.
_UNSEEN = np.finfo(np.float32).max


@flax.struct.dataclass
class Guard:
    """What was seen of a run. grad_norms, losses: float32 [WINDOW], of the last steps, _UNSEEN where there was none; of
    the loss its largest term, without its sign.

    fault_step: int32, the step of the first fault, -1 without. fault: int32, its index in FAULTS.
    """

    grad_norms: jax.Array
    losses: jax.Array
    fault_step: jax.Array
    fault: jax.Array

    @classmethod
    def fresh(cls) -> "Guard":
        """One that has seen nothing, of numpy arrays."""
        unseen = np.full(WINDOW, _UNSEEN, np.float32)
        # Each a buffer of its own, so that all of them can be donated.
        return cls(unseen, unseen.copy(), np.array(-1, np.int32), np.array(0, np.int32))

    def watch(
        self, step: jax.Array, terms: jax.Array, grad_norm: jax.Array, params_norm: jax.Array, limits: Limits
    ) -> "Guard":
        """What is known after step number `step` (from 1). The first fault is kept.

        terms: [n], the parts of the batch's loss, per coordinate, before weights and ramp: a bounded weight makes about
        1 of a loss of any size, and a ramp may make 0 of it.
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
    """Gradient or loss alone is no sign: a loss of sgflow may change its sign, a gradient grow while the loss falls."""
    if not factor:
        return jnp.array(False)
    recent = (place - jnp.arange(RECENT)) % WINDOW
    # Absolute, for runs whose window was filled when it kept the sign.
    far = [jnp.median(a[recent]) > factor * jnp.median(a) for a in (grad_norms, jnp.abs(losses))]
    return far[0] & far[1] & jnp.all(jnp.abs(losses) < _UNSEEN)
