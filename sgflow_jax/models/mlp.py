"""The network for points in a few dimensions."""

import flax.linen as nn
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError
from sgflow_jax.models.embeddings import time_features


class MLP(nn.Module):
    """F(t, u, x) for points: t, u [B], x [B, D], label [B] int32 or None -> like x, in the dtype of x.

    width, depth: units per hidden layer, and how many hidden layers.
    time_dim: features of each of the two times.
    time_scale: highest frequency of these features, radians per unit of time, see `embeddings.time_features`.
    num_classes: classes of the data; 0: train without labels; -1: those of the data.
    label_dropout: share of the examples trained with the null class, number num_classes, in place of their own; 0: no
        null class.
    dtype: type of the computation, "float32" or "bfloat16"; parameters stay float32.
    precision: of float32 products: "highest" (float32), "high" or "default" (TF32 on a GPU), see `BoundNet`.
    """

    width: int = 128
    depth: int = 3
    time_dim: int = 32
    time_scale: float = 10.0
    num_classes: int = 0
    label_dropout: float = 0.0
    dtype: str = "float32"
    precision: str = "highest"

    def check(self, shape: tuple[int, ...]) -> None:
        """InputError unless the options are in range and suit examples of `shape`."""
        if len(shape) != 1:
            raise InputError(f"model.name is 'mlp', for points, but the data are images {shape}: use unet")
        if min(self.width, self.depth) < 1 or self.time_dim < 2 or self.time_dim % 2:
            raise InputError(
                f"model.width is {self.width}, depth {self.depth}, time_dim {self.time_dim}: use positive integers, "
                "time_dim even"
            )

    @nn.compact
    def __call__(self, t, u, x, label=None, dropout_keys=None):
        times = [time_features(time, self.time_dim, self.time_scale) for time in (t, u - t)]
        h = jnp.concatenate([x, *times], axis=-1).astype(self.dtype)
        for i in range(self.depth):
            h = nn.Dense(self.width, dtype=self.dtype, name=f"hidden{i}")(h)
            if self.num_classes and i == 0:
                h = h + nn.Embed(
                    self.num_classes + (self.label_dropout > 0), self.width, dtype=self.dtype, name="label"
                )(label)
            h = nn.silu(h)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(h).astype(x.dtype)
