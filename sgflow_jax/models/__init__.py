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
_PRECISIONS = ("highest", "high", "default")


def make(name: str, **options: Any) -> nn.Module:
    """The network called `name`; InputError names an unknown network, option, compute type or precision."""
    if name not in _MODELS:
        raise InputError(f"unknown model {name!r}: use one of {', '.join(_MODELS)}")
    allowed = [f.name for f in dataclasses.fields(_MODELS[name]) if f.name not in ("parent", "name")]
    if set(options) != set(allowed):
        wrong = sorted(set(options) ^ set(allowed))
        raise InputError(f"model {name}: {', '.join(wrong)} missing or unknown: its options are {', '.join(allowed)}")
    for option, known in {"dtype": _DTYPES, "precision": _PRECISIONS}.items():
        if options[option] not in known:
            raise InputError(f"model {option} is {options[option]!r}: use one of {', '.join(known)}")
    return _MODELS[name](**options)


@flax.struct.dataclass
class BoundNet:
    """A network bound to its parameters: net(t, u, x, label=None) -> like x. A pytree, so it can be passed to jit.

    Its float32 products, and those of its derivatives, have the network's `precision`, whatever JAX's own default is,
    unless a layer asks for more: "highest" is float32 on every device, "default" the device's fastest (on CPU float32,
    on an NVIDIA GPU TF32, on a TPU bfloat16), "high" one in between. With dtype "bfloat16" only the layers that stay
    float32 have such products, and those ask for "highest" themselves.

    label: [B] int32; None for a network without labels. dropout_keys: [B], training mode when given. One key is one
    mask, so that the network and its derivatives see the same, and an example has its own in any part of a batch.
    """

    model: nn.Module = flax.struct.field(pytree_node=False)
    params: Any
    label: jax.Array | None = None
    dropout_keys: jax.Array | None = None

    def __call__(self, t, u, x, label=None):
        label = self.label if label is None else label
        if self.model.num_classes and label is None:
            raise InputError(
                "this network was trained with labels: pass label [B], or bind them with net.replace(label=...)"
            )
        precision = self.model.precision if self.model.dtype == "float32" else "default"
        with jax.default_matmul_precision(precision):
            return self.model.apply({"params": self.params}, t, u, x, label, self.dropout_keys)

    def restrict(self, select) -> "BoundNet":
        """The network for the examples that `select` ([B, ...] -> [b, ...]) keeps: labels and masks go with them."""
        label, dropout_keys = jax.tree.map(select, (self.label, self.dropout_keys))
        return self.replace(label=label, dropout_keys=dropout_keys)
