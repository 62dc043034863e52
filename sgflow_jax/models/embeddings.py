"""The embedding of the two times."""

import flax.linen as nn
import jax
import jax.numpy as jnp

MAX_PERIOD = 1e4
EXACT = jax.lax.Precision.HIGHEST  # for layers that stay float32 whatever the network's dtype and precision


def time_features(t: jax.Array, dim: int, time_scale: float) -> jax.Array:
    """Sines and cosines of t: [B] -> [B, dim], in the precision of t.

    The angular frequencies fall geometrically from `time_scale` (radians per unit of time) to time_scale / MAX_PERIOD
    (Vaswani et al. 2017, section 3.5). Flow-map objectives differentiate the network in time, so this must be smooth:
    with a scale of 1000, usual in diffusion models, d_t F is a hundred times as large as with a scale of 10.
    """
    half = dim // 2
    frequencies = time_scale * MAX_PERIOD ** (-jnp.arange(half, dtype=t.dtype) / max(half - 1, 1))
    angles = t[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """The sum of embeddings of t and u - t, each by its own small network: [B], [B] -> [B, dim].

    Always in the precision of t (float32 in training), whatever the network's dtype and precision.
    """

    dim: int
    time_scale: float

    @nn.compact
    def __call__(self, t: jax.Array, u: jax.Array) -> jax.Array:
        def embed(time, name):
            features = time_features(time, self.dim, self.time_scale)
            hidden = nn.silu(nn.Dense(self.dim, precision=EXACT, name=f"{name}_in")(features))
            return nn.Dense(self.dim, precision=EXACT, name=f"{name}_out")(hidden)

        return embed(t, "time") + embed(u - t, "gap")
