"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598): from the null class towards the example's own.

The null class, number num_classes, is the law of all data. A network learns it from examples whose label is replaced.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError, LabelledNet, Net, expand_time, restrict


def with_null(key: jax.Array, own: jax.Array, share: float, classes: int) -> tuple[jax.Array, jax.Array]:
    """(label, alike): the labels to train with, [B], and which data each example may have, [B, B].

    own: the classes of the data, 0 to classes - 1, [B]. Each is replaced by the null class with probability `share`,
    whatever the data. alike[i, j]: whether datum j is from the distribution of example i, which is that of its class,
    or of all data for the null class.
    """
    label = jnp.where(jax.random.bernoulli(key, share, own.shape), classes, own)
    return label, (own[:, None] == own[None]) | (label[:, None] == classes)


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How strongly, and when. weight: W; 1 is none. start, end: it acts at times start <= t <= end only."""

    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self):
        if not 0 <= self.start < self.end <= 1:
            raise InputError(f"guidance acts from {self.start} to {self.end}: use two times, 0 <= start < end <= 1")

    @property
    def on(self) -> bool:
        """Whether it changes anything."""
        return self.weight != 1

    def at(self, t: jax.Array) -> jax.Array:
        """The weight at times t, [B]: W in the interval, 1 outside."""
        return jnp.where((self.start <= t) & (t <= self.end), self.weight, 1).astype(t.dtype)

    def mix(self, t: jax.Array, conditional: jax.Array, unconditional: jax.Array) -> jax.Array:
        """unconditional + W (conditional - unconditional) at times t [B], like both [B, ...]."""
        W = expand_time(self.at(t), conditional)

        return W * conditional + (1 - W) * unconditional

    def of(self, net: Net) -> Net:
        """The guided network; the network itself without guidance. InputError if it has no null class."""
        return Guided(net, unconditional(net), self) if self.on else net


def unconditional(net: Net) -> Net:
    """The same network, of the null class for every example. InputError if it has none."""
    if not isinstance(net, LabelledNet):
        raise InputError("guidance needs a network with a null class: bind labels, as models.BoundNet does")
    return net.unconditional()


@flax.struct.dataclass
class Guided:
    """F(t, u, x | null) + W (F(t, u, x | c) - F(t, u, x | null)), two calls of the network. On the diagonal this is the
    guided velocity; off it, where the guided map has another average velocity, a heuristic."""

    conditional: LabelledNet
    unconditional: Net
    guidance: Guidance = flax.struct.field(pytree_node=False)

    def __call__(self, t: jax.Array, u: jax.Array, x: jax.Array) -> jax.Array:
        return self.guidance.mix(t, self.conditional(t, u, x), self.unconditional(t, u, x))

    def restrict(self, select) -> "Guided":
        """The same for the examples that `select` keeps."""
        return self.replace(
            conditional=restrict(self.conditional, select), unconditional=restrict(self.unconditional, select)
        )
