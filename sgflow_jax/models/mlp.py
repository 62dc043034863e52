"""The network for points in a few dimensions."""

import flax.linen as nn
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError
from sgflow_jax.models.embeddings import time_features


class MLP(nn.Module):
    """F(t, u, x) for points: t, u [B], x [B, D], label [B] int32 or None -> like x, in the dtype of x.

    width, depth: hidden layers. time_dim: features for each of the two times, see `embeddings.time_features` for
    time_scale. num_classes: 0 for no label. dtype: compute type, "float32" or "bfloat16"; parameters are float32.
    precision: of float32 products, see `BoundNet`.
    """

    width: int
    depth: int
    time_dim: int
    time_scale: float
    num_classes: int
    dtype: str
    precision: str

    def check(self, shape: tuple[int, ...]) -> None:
        """InputError unless the fields are in range and fit examples of `shape`."""
        if len(shape) != 1:
            raise InputError(f"model.name is 'mlp', for points, and the data are images {shape}: use unet")
        if min(self.width, self.depth) < 1 or self.time_dim < 2 or self.time_dim % 2:
            raise InputError(
                f"model.width is {self.width}, depth {self.depth}, time_dim {self.time_dim}: use positive integers, "
                "the last one even"
            )

    @nn.compact
    def __call__(self, t, u, x, label=None, dropout_keys=None):
        times = [time_features(time, self.time_dim, self.time_scale) for time in (t, u - t)]
        h = jnp.concatenate([x, *times], axis=-1).astype(self.dtype)
        for i in range(self.depth):
            h = nn.Dense(self.width, dtype=self.dtype, name=f"hidden{i}")(h)
            if self.num_classes and i == 0:
                h = h + nn.Embed(self.num_classes, self.width, dtype=self.dtype, name="label")(label)
            h = nn.silu(h)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(h).astype(x.dtype)
