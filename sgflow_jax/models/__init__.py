"""Networks F(t, u, x) behind one name each, and their binding to parameters."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax

from sgflow_jax.interfaces import InputError
from sgflow_jax.models.mlp import MLP
from sgflow_jax.models.unet import UNet

_MODELS = {"unet": UNet, "mlp": MLP}
_DTYPES = ("float32", "bfloat16")


def make(name: str, **options: Any) -> nn.Module:
    """The network called `name`; InputError names an unknown network, option or compute type."""
    if name not in _MODELS:
        raise InputError(f"unknown model {name!r}: use one of {', '.join(_MODELS)}")
    allowed = [f.name for f in dataclasses.fields(_MODELS[name]) if f.name not in ("parent", "name")]
    if set(options) != set(allowed):
        wrong = sorted(set(options) ^ set(allowed))
        raise InputError(f"model {name}: {', '.join(wrong)} missing or unknown: its options are {', '.join(allowed)}")
    if options["dtype"] not in _DTYPES:
        raise InputError(f"model dtype is {options['dtype']!r}: use one of {', '.join(_DTYPES)}")
    return _MODELS[name](**options)


@flax.struct.dataclass
class BoundNet:
    """A network bound to its parameters: net(t, u, x, label=None) -> like x. A pytree, so it can be passed to jit.

    label: [B] int32 for the whole batch; None for a network without labels. dropout_key: training mode when given; one
    key and batch size is one mask, so the network and its derivatives see the same mask.
    """

    model: nn.Module = flax.struct.field(pytree_node=False)
    params: Any
    label: jax.Array | None = None
    dropout_key: jax.Array | None = None

    def __call__(self, t, u, x, label=None):
        label = self.label if label is None else label
        if self.model.num_classes and label is None:
            raise InputError(
                "this network was trained with labels: pass label [B], or bind them with net.replace(label=...)"
            )
        train = self.dropout_key is not None
        rngs = {"dropout": self.dropout_key} if train else None
        return self.model.apply({"params": self.params}, t, u, x, label, train=train, rngs=rngs)

    def restrict(self, select) -> "BoundNet":
        """The network for the examples that `select` ([B, ...] -> [b, ...]) keeps: their labels go with them."""
        return self if self.label is None else self.replace(label=select(self.label))
