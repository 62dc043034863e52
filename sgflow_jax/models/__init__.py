"""Networks F(t, u, x) behind one name each, and their binding to parameters."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError
from sgflow_jax.models.mlp import MLP
from sgflow_jax.models.song_unet import SongUNet
from sgflow_jax.models.unet import UNet

_MODELS = {"unet": UNet, "mlp": MLP, "song_unet": SongUNet}
_DTYPES = ("float32", "bfloat16")
_PRECISIONS = ("highest", "high", "default")


def names() -> tuple[str, ...]:
    """Every registered network."""
    return tuple(_MODELS)


def make(name: str, **options: Any) -> nn.Module:
    """The network called `name`. All options are required; InputError names a missing, unknown or invalid one."""
    allowed = default_options(name)
    if wrong := sorted(options.keys() ^ allowed.keys()):
        raise InputError(f"model {name}: {', '.join(wrong)} missing or unknown: its options are {', '.join(allowed)}")
    for option, known in {"dtype": _DTYPES, "precision": _PRECISIONS}.items():
        if options[option] not in known:
            raise InputError(f"model.{option} is {options[option]!r}: use one of {', '.join(known)}")
    if not 0 <= options["label_dropout"] < 1 or options["label_dropout"] and not options["num_classes"]:
        raise InputError(
            f"model.label_dropout is {options['label_dropout']}: use a number >= 0 and < 1, and 0 without labels"
        )
    if not options["time_scale"] > 0:
        raise InputError(f"model.time_scale is {options['time_scale']}: use a number > 0")
    return _MODELS[name](**options)


def default_options(name: str) -> dict[str, Any]:
    """The options of a network with their defaults. InputError if there is no such network."""
    if name not in _MODELS:
        raise InputError(f"unknown model {name!r}: use one of {', '.join(_MODELS)}")
    # Flax adds two fields of its own.
    return {f.name: f.default for f in dataclasses.fields(_MODELS[name]) if f.name not in ("parent", "name")}


@flax.struct.dataclass
class BoundNet:
    """A network bound to its parameters: net(t, u, x, label=None) -> like x. A pytree, so it can be passed to jit.

    Float32 matrix products in the network and its derivatives use the network's `precision`, whatever JAX's own default
    is, unless a layer asks for more: "highest" is float32 on every device, "default" the device's fastest (float32 on
    CPU, TF32 on an NVIDIA GPU, bfloat16 on a TPU), "high" in between. With dtype "bfloat16" the only float32 products
    are in layers that stay float32, and these ask for "highest" themselves.

    label: [B] int32; None for a network without labels. dropout_keys: [B]; if given, the network is in training mode.
    Each key fixes one mask, so the network and its derivatives see the same mask, whichever part of a batch the example
    is in. augment: [B, model.augment_dim], what was done to each example, see `data.augmentation`; None is nothing.
    """

    model: nn.Module = flax.struct.field(pytree_node=False)
    params: Any
    label: jax.Array | None = None
    dropout_keys: jax.Array | None = None
    augment: jax.Array | None = None

    def __call__(self, t, u, x, label=None):
        label = self.label if label is None else label
        self._require_label(label)
        precision = self.model.precision if self.model.dtype == "float32" else "default"
        told = {} if self.augment is None else {"augment": self.augment}  # most networks have no such input
        with jax.default_matmul_precision(precision):
            return self.model.apply({"params": self.params}, t, u, x, label, self.dropout_keys, **told)

    def _require_label(self, label: jax.Array | None) -> None:
        if self.model.num_classes and label is None:
            raise InputError(
                "this network was trained with labels: pass label [B], or bind them with net.replace(label=...)"
            )

    def restrict(self, select) -> "BoundNet":
        """See `interfaces.ConditionedNet`."""
        label, dropout_keys, augment = jax.tree.map(select, (self.label, self.dropout_keys, self.augment))
        return self.replace(label=label, dropout_keys=dropout_keys, augment=augment)

    def unconditional(self) -> "BoundNet":
        """See `interfaces.LabelledNet`."""
        if not (self.model.num_classes and self.model.label_dropout):
            raise InputError("guidance needs a network with a null class: train with labels and model.label_dropout")
        self._require_label(self.label)
        return self.replace(label=jnp.full_like(self.label, self.model.num_classes))

    def has_class(self) -> jax.Array:
        """See `interfaces.LabelledNet`."""
        return self.label < self.model.num_classes
