"""A network in training: its dropout masks, the average of its parameters, and a learned weight of its loss."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.models.embeddings import EXACT, time_features

_FEATURES, _TIME_SCALE = 64, 10.0


class LossWeight(nn.Module):
    """w(t, u) of the weight exp(-w) (Karras et al. 2024, arXiv 2312.02696; Boffi et al. 2025): t, u [B] -> [B].

    Linear in fixed features of t, u and u - t, whose squares sum to 1: else a step of Adam, which moves every
    coefficient by the learning rate, would move w too far. 0 at the start.
    """

    @nn.compact
    def __call__(self, t: jax.Array, u: jax.Array) -> jax.Array:
        features = jnp.concatenate([time_features(each, _FEATURES, _TIME_SCALE) for each in (t, u, u - t)], axis=-1)
        features = features * (2 / features.shape[-1]) ** 0.5
        return nn.Dense(1, kernel_init=nn.initializers.zeros, precision=EXACT, name="out")(features)[:, 0]


@flax.struct.dataclass
class BoundTrainedNet(BoundNet):
    """See `interfaces.TrainedNet`. average: like params. loss_weight: the parameters of `LossWeight`. Each may be None
    where the objective does not use it."""

    average: Any = None
    loss_weight: Any = None

    def without_dropout(self) -> "BoundTrainedNet":
        # The network itself, where it has none: then a prediction and its target share one call.
        return self if self.dropout_keys is None else self.replace(dropout_keys=None)

    def averaged(self) -> "BoundTrainedNet":
        if self.average is None:
            raise InputError("the average of the parameters is not bound: set it with net.replace(average=...)")
        return self.replace(params=self.average)

    def log_loss(self, t: jax.Array, u: jax.Array) -> jax.Array:
        if self.loss_weight is None:
            raise InputError("the weight of the loss is not bound: set it with net.replace(loss_weight=...)")
        return LossWeight().apply({"params": self.loss_weight}, t, u)
