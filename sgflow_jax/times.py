"""How the times (t, u) of a batch are drawn, and which examples lie on the diagonal t = u."""

import dataclasses
import enum
import fractions

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError

LAWS = ("uniform", "logit_normal")
MAX_GROUP = 64


class Domain(enum.Enum):
    """The times (t, u) at which a network learns F(t, u, x). Each value is the phrase used in error messages."""

    DIAGONAL = "t = u"
    FORWARD = "t <= u"
    BOTH = "all t and u"
    TO_DATA = "u = 1"
    DYADIC = "t = u, and u - t = 1, 1/2, 1/4, ..."


@dataclasses.dataclass(frozen=True)
class TimeLaw:
    """The distribution of one time in (0, 1).

    name: "uniform", or "logit_normal": t = 1 / (1 + exp(-z)) with z ~ N(logit_mean, logit_std^2).
    logit_mean: above 0 favours data, t = 1. In papers with noise at time 1 the sign is the opposite, since the logit
        of 1 - t is -z: MeanFlow's P_mean = -2, which favours data, is logit_mean = +2 here.
    """

    name: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0

    def __post_init__(self):
        if self.name not in LAWS:
            raise InputError(f"unknown time_law {self.name!r}: use one of {', '.join(LAWS)}")
        if self.logit_std <= 0:
            raise InputError(f"logit_std is {self.logit_std}: use a positive number")

    def single(self, key: jax.Array, n: int, dtype=jnp.float32) -> jax.Array:
        """Independent times t [n], for diagonal examples."""
        if self.name == "uniform":
            return jax.random.uniform(key, (n,), dtype)
        return jax.nn.sigmoid(self.logit_mean + self.logit_std * jax.random.normal(key, (n,), dtype))

    def pair(self, key: jax.Array, n: int, dtype=jnp.float32, both: bool = False) -> tuple[jax.Array, jax.Array]:
        """(t, u), both [n]: two independent draws, sorted so that t <= u unless `both` orders are wanted."""
        a, b = self.single(key, 2 * n, dtype).reshape(2, n)
        return (a, b) if both else (jnp.minimum(a, b), jnp.maximum(a, b))


@dataclasses.dataclass(frozen=True)
class Strata:
    """A fixed split of every batch into diagonal (t = u) and off-diagonal examples.

    The batch [B, ...] is reshaped to [B / group, group, ...]; the first `diagonal` columns are diagonal. A batch that
    is sharded over devices along its first axis is split without moving data, and every device holds the same share of
    each kind.
    """

    group: int
    diagonal: int

    @classmethod
    def from_probability(cls, prob_diagonal: float) -> "Strata":
        """The split with exactly the share `prob_diagonal` (0 < p < 1) on the diagonal. InputError if none has it."""
        share = fractions.Fraction(prob_diagonal).limit_denominator(MAX_GROUP)
        if not 0 < share < 1 or abs(share - prob_diagonal) > 1e-6:
            raise InputError(
                f"prob_diagonal is {prob_diagonal}: use a fraction between 0 and 1 with a denominator up to "
                f"{MAX_GROUP}, like 0.5"
            )
        return cls(group=share.denominator, diagonal=share.numerator)

    def counts(self, n: int) -> tuple[int, int]:
        """The numbers of diagonal and off-diagonal examples among n. InputError if n does not split into groups."""
        if n % self.group:
            raise InputError(
                f"a batch of {n} does not split into groups of {self.group}: use a multiple of {self.group}"
            )
        on = n // self.group * self.diagonal
        return on, n - on

    def on_diagonal(self, a: jax.Array) -> jax.Array:
        """The diagonal examples of a [B, ...]."""
        return self._columns(a, slice(None, self.diagonal))

    def off_diagonal(self, a: jax.Array) -> jax.Array:
        """The off-diagonal examples of a [B, ...]."""
        return self._columns(a, slice(self.diagonal, None))

    def merge(self, on: jax.Array, off: jax.Array) -> jax.Array:
        """Inverts the split: per-example values in the order of the batch, [B]."""
        on = on.reshape(-1, self.diagonal)
        off = off.reshape(-1, self.group - self.diagonal)
        return jnp.concatenate([on, off], axis=1).reshape(-1)

    def _columns(self, a: jax.Array, columns: slice) -> jax.Array:
        self.counts(a.shape[0])
        grouped = a.reshape(-1, self.group, *a.shape[1:])
        return grouped[:, columns].reshape(-1, *a.shape[1:])
