"""How the times (t, u) of a batch are drawn, and which examples lie on the diagonal t = u."""

import dataclasses
import enum
import fractions

import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError

LAWS = ("uniform", "logit_normal")
PAIRINGS = ("sorted", "clipped")
MAX_LOGIT = 100.0
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

    name: "uniform", or "logit_normal": t = 1 / (1 + exp(-z)) with z ~ N(logit_mean, logit_std^2), kept in the open
        interval by one rounding unit.
    logit_mean: above 0 favours data, t = 1. In papers with noise at time 1 the sign is the opposite, since the logit
        of 1 - t is -z: MeanFlow's P_mean = -2, which favours data, is logit_mean = +2 here. EDM and consistency models
        draw the noise level of x1 + sigma x0 instead. On the linear path x_t / t has sigma = (1 - t) / t, so the logit
        of t is -ln sigma: ln sigma ~ N(-1.2, 1.2^2) (EDM) is logit_mean = 1.2, logit_std = 1.2, and iCT's and ECT's
        N(-1.1, 2^2) is 1.1 and 2.
    prefix: of these names in an error.
    """

    name: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    prefix: str = dataclasses.field(default="", compare=False)

    def __post_init__(self):
        if self.name not in LAWS:
            raise InputError(f"unknown {self.prefix or 'time_'}law {self.name!r}: use one of {', '.join(LAWS)}")
        if not 0 < self.logit_std <= MAX_LOGIT:
            raise InputError(
                f"{self.prefix}logit_std is {self.logit_std}: use a positive number of at most {MAX_LOGIT}"
            )
        if not abs(self.logit_mean) <= MAX_LOGIT:
            raise InputError(f"{self.prefix}logit_mean is {self.logit_mean}: use one from {-MAX_LOGIT} to {MAX_LOGIT}")

    def single(self, key: jax.Array, n: int, dtype=jnp.float32) -> jax.Array:
        """Independent times t [n], for diagonal examples."""
        if self.name == "uniform":
            return jax.random.uniform(key, (n,), dtype)
        t = jax.nn.sigmoid(self.logit_mean + self.logit_std * jax.random.normal(key, (n,), dtype))
        least = jnp.finfo(dtype).eps  # float32 rounds the sigmoid of 17 up to 1
        return jnp.clip(t, least, 1 - least)


@dataclasses.dataclass(frozen=True)
class PairLaw:
    """The distribution of the two times t <= u of a jump, made of two independent times a and b.

    start, end: the laws of a and b.
    pairing: "sorted": t = min(a, b), u = max(a, b). With two uniform times (t, u) has the density 2 on t < u: it is
        uniform on the triangle. "clipped": t = a, u = max(a, b), so the jumps with b <= a have length 0.
    """

    start: TimeLaw
    end: TimeLaw
    pairing: str = "sorted"

    def draw(self, key: jax.Array, n: int, dtype=jnp.float32) -> tuple[jax.Array, jax.Array]:
        """(t, u), both [n]."""
        a, b = self.unordered(key, n, dtype)
        return (jnp.minimum(a, b) if self.pairing == "sorted" else a), jnp.maximum(a, b)

    def unordered(self, key: jax.Array, n: int, dtype=jnp.float32) -> tuple[jax.Array, jax.Array]:
        """(a, b), both [n]."""
        if self.start == self.end:
            a, b = self.start.single(key, 2 * n, dtype).reshape(2, n)
            return a, b
        key_start, key_end = jax.random.split(key)
        return self.start.single(key_start, n, dtype), self.end.single(key_end, n, dtype)


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
