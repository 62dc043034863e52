"""The U-Net that public MeanFlow and EDM weights belong to: DDPM++ of Song et al. 2021 (arXiv 2011.13456), as in Karras
et al. 2022 (arXiv 2206.00364), with a second time for flow maps (Geng et al. 2025, arXiv 2505.13447).

Layers have the names of the released files, see `song_names`.
"""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from sgflow_jax.interfaces import InputError
from sgflow_jax.models import edm
from sgflow_jax.models.embeddings import EXACT, time_features
from sgflow_jax.models.unet import REMAT, STREAM, check_image_network, dropout, normalised

# By `preconditioning`: the taps of the filter of a resampling, along each axis.
FILTERS = {"none": (1, 3, 3, 1), "edm": (1, 1)}
HALF = 0.5**0.5  # keeps the variance of a sum of two
SMALL = 1e-5  # factor on the first weights of each last layer: a block is almost the identity at the start
QKV_VARIANCE = 0.2  # factor on the variance of the first weights of an attention's projections


def _xavier(variance=1.0):
    return nn.initializers.variance_scaling(variance, "fan_avg", "uniform")


def _conv(features, dtype, name, kernel=3, variance=1.0, precision=None):
    init = _xavier(variance)
    return nn.Conv(features, (kernel, kernel), kernel_init=init, dtype=dtype, precision=precision, name=name)


def _dense(features, name, dtype=None, use_bias=True):
    init = _xavier()
    return nn.Dense(features, use_bias, dtype, kernel_init=init, precision=EXACT, name=name)


def halved(x: jax.Array, taps: tuple[int, ...]) -> jax.Array:
    """[B, H, W, C] -> [B, H/2, W/2, C]: filters both axes with an even number of taps, normalised to sum 1, and keeps
    every second pixel. Outside the image are zeros."""
    for axis in (1, 2):
        padded, size = _padded(x, taps, axis), x.shape[axis]
        parts = (jax.lax.slice_in_dim(padded, k, k + size - 1, 2, axis) * tap for k, tap in enumerate(taps))
        x = sum(parts) / sum(taps)
    return x


def doubled(x: jax.Array, taps: tuple[int, ...]) -> jax.Array:
    """[B, H, W, C] -> [B, 2 H, 2 W, C]: 4 times the transpose of `halved`, which keeps a constant inside."""
    pad = len(taps) // 2 - 1
    for axis in (1, 2):
        padded, size, phases = _padded(x, taps, axis), x.shape[axis], []
        for first in (pad, pad + 1):  # of even pixels, of odd pixels
            # Pixel 2 i + r gets tap k = 2 (i - j) + pad + r of pixel j of x, which is j + pad of the padded x.
            shifts = {k: (first - k) // 2 + pad for k in range(first % 2, len(taps), 2)}
            parts = (jax.lax.slice_in_dim(padded, m, m + size, 1, axis) * taps[k] for k, m in shifts.items())
            phases.append(sum(parts) * (2 / sum(taps)))
        x = jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def _padded(x, taps, axis):
    width = len(taps) // 2 - 1
    return jnp.pad(x, [(width, width) if i == axis else (0, 0) for i in range(x.ndim)])


def _attended(x, dtype):
    """Self-attention over the pixels with one head, in the calling module. [B, H, W, C] -> the same."""
    batch, height, width, features = x.shape
    qkv = _conv(3 * features, dtype, "qkv", kernel=1, variance=QKV_VARIANCE)(normalised(x, dtype, "norm2"))
    q, k, v = jnp.split(qkv.reshape(batch, height * width, 1, 3 * features), 3, axis=-1)
    h = nn.dot_product_attention(q, k, v, dtype=dtype, force_fp32_for_softmax=True)
    return _conv(features, dtype, "proj", kernel=1, variance=SMALL**2)(h.reshape(x.shape))


class SongBlock(nn.Module):
    """Twice GroupNorm, SiLU and convolution, with the embedding [B, E] added in between. [B, H, W, C] -> features.

    resample: of the image before the first convolution, or None. attends: whether attention follows.
    keys: [B], for dropout; None: no dropout. skip: further channels to append to x, if any.
    """

    features: int
    attends: bool
    dropout: float
    dtype: jnp.dtype
    resample: functools.partial | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, embedding: jax.Array, keys: jax.Array | None = None, skip: jax.Array | None = None
    ) -> jax.Array:
        if skip is not None:
            x = jnp.concatenate([x, skip], axis=-1)  # here, so that remat does not store it twice
        h = nn.silu(normalised(x, self.dtype, "norm0"))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = _conv(self.features, self.dtype, "conv0")(h)

        h = h + _dense(self.features, "affine", dtype=STREAM)(embedding)[:, None, None, :]

        h = nn.silu(normalised(h, self.dtype, "norm1"))
        if keys is not None:
            h = dropout(h, keys, self.dropout)
        h = _conv(self.features, self.dtype, "conv1", variance=SMALL**2)(h)

        if x.shape[-1] != self.features or self.resample is not None:
            x = _conv(self.features, self.dtype, "skip", kernel=1)(x)
        x = (x.astype(STREAM) + h) * HALF
        return (x + _attended(x, self.dtype)) * HALF if self.attends else x


class SongUNet(nn.Module):
    """F(t, u, x) for images: t, u [B], x [B, H, W, C], label [B] int32 or None -> like x, in the dtype of x.

    Released networks run time from data to noise and return the average velocity in that direction for the time 1 - t
    and the length u - t of the jump. F is its negative here, so that x_u = x_t + (u - t) F (see `interpolant`).

    channels: width of the first level is channels * channel_mult[0]; a multiple of 4.
    channel_mult: multiple of that width at each level; each level halves the image.
    num_blocks: residual blocks per level on the way down; one more on the way up.
    attention_sizes: heights, in pixels, of the levels with self-attention. The lowest level has it once in any case.
    dropout: share of activations dropped in training.
    time_scale: highest frequency of the time embedding, radians per unit of time; 1 in the released networks.
    num_classes: classes of the data; 0: train without labels; -1: those of the data.
    label_dropout: share of the examples trained with the null class, number num_classes, in place of their own; 0: no
        null class. The null class has no parameters: it is the absence of a label, as in EDM.
    augment_dim: numbers in the label of an augmentation, `augment` [B, augment_dim]; None is all zeros, an untouched
        image. 0: there is no such label, and `augment` is ignored. 6 and 9 are those of `data.augment`: the released
        networks of MeanFlow and EDM.
    preconditioning: "none", or "edm" for a denoiser trained as in EDM, see `edm.velocity`. That has a single time: F is
        the velocity v(t, x) for every u, and only flow_matching can train it. Use it as a teacher, or with many steps.
    dtype: type of the computation, "float32" or "bfloat16"; parameters stay float32.
    precision: of float32 products: "highest" (float32), "high" or "default" (TF32 on a GPU), see `BoundNet`.
    remat: what the backward pass computes again, "none", "elementwise" or "block", see REMAT and docs/cost.md.
    """

    channels: int = 128
    channel_mult: tuple[int, ...] = (2, 2, 2)
    num_blocks: int = 4
    attention_sizes: tuple[int, ...] = (16,)
    dropout: float = 0.0
    time_scale: float = 1.0
    num_classes: int = 0
    label_dropout: float = 0.0
    augment_dim: int = 0
    preconditioning: str = "none"
    dtype: str = "float32"
    precision: str = "highest"
    remat: str = "none"

    def check(self, shape: tuple[int, ...]) -> None:
        """InputError unless the options are in range and suit examples of `shape`."""
        check_image_network(self, "song_unet", shape)
        if self.augment_dim < 0:
            raise InputError(f"model.augment_dim is {self.augment_dim}: use 0 or more")
        if self.preconditioning not in FILTERS:
            raise InputError(f"model.preconditioning is {self.preconditioning!r}: use one of {', '.join(FILTERS)}")

    @nn.compact
    def __call__(self, t, u, x, label=None, dropout_keys=None, augment=None):
        def net(x, *times):
            return self._image(x, self._embedding(times, label, augment), dropout_keys)

        return edm.velocity(net, t, x) if self.preconditioning == "edm" else -net(x, 1 - t, u - t)

    def _embedding(self, times, label, augment):
        """[B, 4 channels], of one time or two."""
        dim = self.channels * len(times)
        # Sines before cosines, unlike `time_features`.
        features = [jnp.roll(time_features(time, dim, self.time_scale), dim // 2, axis=-1) for time in times]
        h = jnp.concatenate(features, axis=-1)
        if self.num_classes:
            classes = jax.nn.one_hot(label, self.num_classes, dtype=h.dtype)  # zeros for the null class
            h = h + _dense(h.shape[-1], "map_label")(self.num_classes**0.5 * classes)
        if self.augment_dim:
            augment = jnp.zeros((h.shape[0], self.augment_dim), h.dtype) if augment is None else augment
            h = h + _dense(h.shape[-1], "map_augment", use_bias=False)(augment)
        for name in ("map_layer0", "map_layer1"):
            h = nn.silu(_dense(4 * self.channels, name)(h))
        return h

    def _image(self, x, embedding, dropout_keys):
        """The network from the image and the embedding: [B, H, W, C] -> like x."""
        make, taps = REMAT[self.remat](SongBlock), FILTERS[self.preconditioning]
        down, up = (functools.partial(resample, taps=taps) for resample in (halved, doubled))
        numbers = itertools.count()

        def block(h, name, features, attends=False, resample=None, skip=None):
            keys = None
            if dropout_keys is not None and self.dropout:
                keys = jax.vmap(jax.random.fold_in, (0, None))(dropout_keys, next(numbers))
            options = features, attends, self.dropout, jnp.dtype(self.dtype), resample
            return make(*options, name=name)(h, embedding, keys, skip)

        def place(part, level):
            return f"{part}_{x.shape[1] >> level}x{x.shape[1] >> level}"

        h = _conv(self.channels, STREAM, f"{place('enc', 0)}_conv", precision=EXACT)(x)
        skips = [h]
        for level, mult in enumerate(self.channel_mult):
            if level:
                h = block(h, f"{place('enc', level)}_down", h.shape[-1], resample=down)
                skips.append(h)
            attends = h.shape[1] in self.attention_sizes
            for i in range(self.num_blocks):
                h = block(h, f"{place('enc', level)}_block{i}", mult * self.channels, attends)
                skips.append(h)

        h = block(h, f"{place('dec', level)}_in0", h.shape[-1], attends=True)
        h = block(h, f"{place('dec', level)}_in1", h.shape[-1])
        for level, mult in reversed(list(enumerate(self.channel_mult))):
            if level < len(self.channel_mult) - 1:
                h = block(h, f"{place('dec', level)}_up", h.shape[-1], resample=up)
            for i in range(self.num_blocks + 1):
                attends = i == self.num_blocks and h.shape[1] in self.attention_sizes
                h = block(h, f"{place('dec', level)}_block{i}", mult * self.channels, attends, skip=skips.pop())

        def head(module, h):
            h = nn.silu(normalised(h, STREAM, f"{place('dec', 0)}_aux_norm"))
            name = f"{place('dec', 0)}_aux_conv"
            return _conv(x.shape[-1], STREAM, name, variance=SMALL**2, precision=EXACT)(h)

        return REMAT[self.remat](head)(self, h).astype(x.dtype)
