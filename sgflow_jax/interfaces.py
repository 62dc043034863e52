"""Shapes and protocols shared by every module: networks, losses, input faults.

Arrays: x is [B, ...], times t and u are [B] with 0 <= t <= u <= 1 (see `interpolant`).
"""

import enum
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp


class InputError(ValueError):
    """The user's input is wrong. The message is one line: the fault, then the remedy."""


MAX_SEED = 2**31 - 1
MAX_SAMPLES = 10**7  # examples generated in one call, which keeps some data of each in memory


class Stream(enum.IntEnum):
    """The uses of one seed; see `stream_key`."""

    PARAMETERS = 0
    TRAINING = 1
    SAMPLING = 2


def stream_key(seed: int, stream: Stream) -> jax.Array:
    """The random key for one use of a seed. No two uses share random numbers."""
    return jax.random.fold_in(jax.random.key(seed), stream)


class Net(Protocol):
    """The average velocity F: t [B], u [B], x [B, ...] -> array like x.

    Any callable works: a Flax network bound to its parameters, or an oracle.
    """

    def __call__(self, t: jax.Array, u: jax.Array, x: jax.Array) -> jax.Array: ...


@runtime_checkable
class ConditionedNet(Protocol):
    """A network that holds more arrays per example (class and augmentation labels, dropout keys)."""

    def restrict(self, select: Callable[[jax.Array], jax.Array]) -> "ConditionedNet":
        """The same network for the examples that `select` ([B, ...] -> [b, ...]) keeps."""


@runtime_checkable
class LabelledNet(ConditionedNet, Protocol):
    """A network with a class label for each example."""

    def unconditional(self) -> Net:
        """The same network, of the null class for every example. InputError if it was trained without one."""

    def has_class(self) -> jax.Array:
        """[B]: whether the label of an example is a class, not the null class."""


@runtime_checkable
class TrainedNet(Protocol):
    """A network during training."""

    def without_dropout(self) -> Net:
        """The same network as it will be sampled, with no activation dropped."""

    def averaged(self) -> Net:
        """The same network, dropout included, with the average of its parameters in place of the parameters."""

    def log_loss(self, t: jax.Array, u: jax.Array) -> jax.Array:
        """w(t, u), [B], of the learned weight exp(-w) of the loss: an estimate of the logarithm of the loss."""


class LossOut(NamedTuple):
    """The result of an objective.

    per_example: [B], the unreduced loss, summed over the coordinates of x.
    metrics: scalars, each the mean of a squared norm over the examples it applies to.
    terms: scalars, the parts of the loss before any weight or ramp, each the mean over the examples it applies to; ()
        if the only one is the mean of per_example.
    degree: a scalar or [B]. per_example grows with the number of coordinates D as D^degree: 1 for a squared norm, 0 for
        a loss that a weight bounds or that is per coordinate. Training minimises the mean of per_example / D^degree.
    """

    per_example: jax.Array
    metrics: dict[str, jax.Array]
    terms: tuple[jax.Array, ...] = ()
    degree: jax.Array | float = 1.0


def restrict(net: Net, select: Callable[[jax.Array], jax.Array]) -> Net:
    """The same network for the examples that `select` ([B, ...] -> [b, ...]) keeps."""
    return net.restrict(select) if isinstance(net, ConditionedNet) else net


def without_dropout(net: Net) -> Net:
    """The same network with no activation dropped."""
    return net.without_dropout() if isinstance(net, TrainedNet) else net


def in_training(net: Net) -> TrainedNet:
    """The network itself. InputError if it is not in training, so has no average and no weight of the loss."""
    if not isinstance(net, TrainedNet):
        raise InputError("this option needs a network in training: bind it as models.trained.BoundTrainedNet does")
    return net


def expand_time(t: jax.Array, x: jax.Array) -> jax.Array:
    """Reshapes t [B] to [B, 1, ..., 1], to multiply x [B, ...]."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """The inner product of each example: [B, ...], [B, ...] -> [B]."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)))


def squared_norm(a: jax.Array) -> jax.Array:
    """|a|^2 of each example: [B, ...] -> [B]."""
    return inner(a, a)
