"""The U-Net for images (Ho et al. 2020, after Ronneberger et al. 2015), conditioned on two times and a class label."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError
from sgflow_jax.models.embeddings import EXACT, TimeEmbedding

MAX_GROUPS = 32  # of a normalisation, as in the published U-Nets
CHANNELS_PER_GROUP = 4  # at least, for narrow networks
# Dtype of the residual stream and of the first and last layers, whatever the dtype of the rest: rounding them to
# bfloat16 would cause most of a gradient's error (docs/cost.md). Their products are EXACT.
STREAM = jnp.float32
CHANNELS_PER_HEAD = 64  # of the attention, if it divides the width; else there is one head


def _is_product(primitive, *inputs, **options) -> bool:
    """Whether an operation multiplies by parameters: a convolution, or a product without a batch dimension."""
    return primitive.name == "conv_general_dilated" or jax.checkpoint_policies.dots_with_no_batch_dims_saveable(
        primitive, *inputs, **options
    )


# What the backward pass recomputes in each block instead of storing (`jax.checkpoint`; Chen et al. 2016): nothing;
# everything except convolutions and other products with parameters, which take nearly all of the time; everything.
REMAT = {
    "none": lambda block: block,
    "elementwise": functools.partial(nn.remat, policy=_is_product),
    "block": nn.remat,
}


def norm_groups(channels: int) -> int:
    """How many groups a normalisation splits `channels` (a multiple of 4) into: a quarter of them, at most 32, or the
    next smaller number that divides them (132 channels: 22 groups of 6)."""
    most = min(MAX_GROUPS, channels // CHANNELS_PER_GROUP)
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def normalised(h: jax.Array, dtype: jnp.dtype, name: str | None = None) -> jax.Array:
    """GroupNorm in the calling module. Its statistics are float32 in Flax whatever the dtype."""
    return nn.GroupNorm(norm_groups(h.shape[-1]), dtype=dtype, name=name)(h)


def _conv(features, dtype, kernel=3, stride=1, zero=False, precision=None, name=None):
    init = nn.initializers.zeros if zero else nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    size, strides = (kernel, kernel), (stride, stride)
    return nn.Conv(features, size, strides, kernel_init=init, dtype=dtype, precision=precision, name=name)


def dropout(h: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """Zeroes a share `rate` of each example by its own key [B], so its mask is the same in any part of a batch."""
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, h.shape[1:]))(keys)
    return jnp.where(kept, h / (1 - rate), 0)


class ResidualBlock(nn.Module):
    """Twice GroupNorm, SiLU and convolution, with the condition [B, E] added in between. [B, H, W, C] -> features.

    keys: [B], for dropout; None: no dropout. skip: further channels to append to x, if any.
    """

    features: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, condition: jax.Array, keys: jax.Array | None = None, skip: jax.Array | None = None
    ) -> jax.Array:
        if skip is not None:
            x = jnp.concatenate([x, skip], axis=-1)  # here, so that remat does not store it twice
        h = _conv(self.features, self.dtype, name="conv_in")(nn.silu(normalised(x, self.dtype, "norm_in")))

        condition = nn.Dense(self.features, dtype=STREAM, precision=EXACT, name="condition")(nn.silu(condition))
        h = h + condition[:, None, None, :]

        h = nn.silu(normalised(h, self.dtype, "norm_out"))
        if keys is not None:
            h = dropout(h, keys, self.dropout)
        h = _conv(self.features, self.dtype, zero=True, name="conv_out")(h)

        if x.shape[-1] != self.features:
            x = _conv(self.features, self.dtype, kernel=1, name="shortcut")(x)
        return x.astype(STREAM) + h


class AttentionBlock(nn.Module):
    """Self-attention over the pixels, added to its input. [B, H, W, C] -> the same."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, features = x.shape
        h = normalised(x, self.dtype).reshape(batch, height * width, features)
        h = nn.MultiHeadDotProductAttention(
            num_heads=1 if features % CHANNELS_PER_HEAD else features // CHANNELS_PER_HEAD,
            dtype=self.dtype,
            force_fp32_for_softmax=True,
            out_kernel_init=nn.initializers.zeros,
        )(h)
        return x.astype(STREAM) + h.reshape(x.shape)


def check_image_network(model: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """InputError unless the options that all networks with levels share are in range and suit examples of `shape`."""
    if len(shape) != 3:
        raise InputError(f"model.name is {name!r}, for images, but the data are points {shape}: use mlp")
    halvings = len(model.channel_mult) - 1
    if halvings < 0 or min(model.channel_mult) < 1 or any(size % 2**halvings for size in shape[:2]):
        raise InputError(
            f"model.channel_mult is {model.channel_mult}: use positive integers, and few enough "
            f"that {shape[0]} x {shape[1]} pixels can be halved between levels"
        )
    sizes = [shape[0] // 2**level for level in range(halvings + 1)]
    if not set(model.attention_sizes) <= set(sizes):
        raise InputError(f"model.attention_sizes is {model.attention_sizes}: use some of the levels' heights, {sizes}")
    if model.channels < 1 or model.channels % CHANNELS_PER_GROUP:
        raise InputError(f"model.channels is {model.channels}: use a multiple of {CHANNELS_PER_GROUP}")
    if model.remat not in REMAT:
        raise InputError(f"model.remat is {model.remat!r}: use one of {', '.join(REMAT)}")
    if model.num_blocks < 1 or not 0 <= model.dropout < 1:
        raise InputError(
            f"model.num_blocks is {model.num_blocks} and dropout {model.dropout}: use 1 or more, and "
            "a number >= 0 and < 1"
        )


class UNet(nn.Module):
    """F(t, u, x) for images: t, u [B], x [B, H, W, C], label [B] int32 or None -> like x, in the dtype of x.

    channels: width of the first level, a multiple of 4.
    channel_mult: multiple of that width at each level; each level halves the image.
    num_blocks: residual blocks per level on the way down; one more on the way up.
    attention_sizes: heights, in pixels, of the levels with self-attention; the middle then has it too. (): none.
    dropout: share of activations dropped in training.
    time_scale: highest frequency of the time embedding, radians per unit of time, see `embeddings.time_features`.
    num_classes: classes of the data; 0: train without labels; -1: those of the data.
    label_dropout: share of the examples trained with the null class, number num_classes, in place of their own; 0: no
        null class.
    dtype: type of the computation, "float32" or "bfloat16"; parameters stay float32.
    precision: of float32 products: "highest" (float32), "high" or "default" (TF32 on a GPU), see `BoundNet`.
    remat: what the backward pass computes again, "none", "elementwise" or "block", see REMAT and docs/cost.md.
    """

    channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2)
    num_blocks: int = 3
    attention_sizes: tuple[int, ...] = (16,)
    dropout: float = 0.0
    time_scale: float = 10.0
    num_classes: int = 0
    label_dropout: float = 0.0
    dtype: str = "float32"
    precision: str = "highest"
    remat: str = "none"

    def check(self, shape: tuple[int, ...]) -> None:
        """InputError unless the options are in range and suit examples of `shape`."""
        check_image_network(self, "unet", shape)

    @nn.compact
    def __call__(self, t, u, x, label=None, dropout_keys=None):
        out_dtype, dtype = x.dtype, jnp.dtype(self.dtype)
        residual, attention = (REMAT[self.remat](block) for block in (ResidualBlock, AttentionBlock))
        numbers = itertools.count()

        condition = TimeEmbedding(4 * self.channels, self.time_scale, name="times")(t, u)
        if self.num_classes:
            condition = condition + nn.Embed(
                self.num_classes + (self.label_dropout > 0), 4 * self.channels, name="label"
            )(label)

        def block(h, features, name, skip=None):
            keys = None
            if dropout_keys is not None and self.dropout:
                keys = jax.vmap(jax.random.fold_in, (0, None))(dropout_keys, next(numbers))
            return residual(features, self.dropout, dtype, name=name)(h, condition, keys, skip)

        def attended(h, name):
            return attention(dtype, name=f"{name}_attention")(h) if h.shape[1] in self.attention_sizes else h

        h = _conv(self.channels, STREAM, precision=EXACT, name="stem")(x)
        skips = [h]
        for level, mult in enumerate(self.channel_mult):
            if level:
                h = _conv(h.shape[-1], dtype, stride=2, name=f"down{level}")(h)
                skips.append(h)
            for i in range(self.num_blocks):
                h = block(h, mult * self.channels, f"down{level}_block{i}")
                h = attended(h, f"down{level}_block{i}")
                skips.append(h)

        h = block(h, h.shape[-1], "middle_block0")
        if self.attention_sizes:
            h = attention(dtype, name="middle_attention")(h)
        h = block(h, h.shape[-1], "middle_block1")

        for level, mult in reversed(list(enumerate(self.channel_mult))):
            for i in range(self.num_blocks + 1):
                h = block(h, mult * self.channels, f"up{level}_block{i}", skips.pop())
                h = attended(h, f"up{level}_block{i}")
            if level:
                h = h.repeat(2, axis=1).repeat(2, axis=2)
                h = _conv(h.shape[-1], dtype, name=f"up{level}")(h)

        def head(module, h):
            h = nn.silu(normalised(h, STREAM, "norm_out"))
            # Zero at the start: F = 0, so the map is the identity and its derivatives are small.
            return _conv(x.shape[-1], STREAM, zero=True, precision=EXACT, name="out")(h)

        return REMAT[self.remat](head)(self, h).astype(out_dtype)
