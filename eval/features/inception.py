"""InceptionV3 (Szegedy et al. 2016) with the 2015 weights that define the FID (Heusel et al. 2017)."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eval.features import download, resize, weights
from eval.features.interface import Features, Request
from eval.features.network import Network
from sgflow_jax.data import fingerprint
from sgflow_jax.devices import processes
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

# The weights that define the FID, as published by pytorch-fid.
URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIZE = 299  # pixels per side of the network's input
RULE = "tf1"  # resize of most published FIDs; docs/evaluation.md says whose
BATCH_SIZE = 64

Layer = Callable[[jax.Array], jax.Array]


def _conv(name: str, features: int, kernel=(1, 1), stride: int = 1, padding: str = "SAME") -> Layer:
    return lambda x: nn.relu(nn.Conv(features, kernel, stride, padding, name=name)(x))


def _chain(*layers: Layer) -> Layer:
    return lambda x: functools.reduce(lambda x, layer: layer(x), layers, x)


def _fork(*layers: Layer) -> Layer:
    return lambda x: jnp.concatenate([layer(x) for layer in layers], axis=-1)


_halve = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))
_maximum = functools.partial(nn.max_pool, window_shape=(3, 3), padding="SAME")
_average = functools.partial(nn.avg_pool, window_shape=(3, 3), padding="SAME", count_include_pad=False)


def _block_35(pooled: int) -> Layer:
    return _fork(
        _conv("branch1x1", 64),
        _chain(_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, (5, 5))),
        _chain(_conv("branch3x3dbl_1", 64), _conv("branch3x3dbl_2", 96, (3, 3)), _conv("branch3x3dbl_3", 96, (3, 3))),
        _chain(_average, _conv("branch_pool", pooled)),
    )


def _block_17(width: int) -> Layer:
    return _fork(
        _conv("branch1x1", 192),
        _chain(_conv("branch7x7_1", width), _conv("branch7x7_2", width, (1, 7)), _conv("branch7x7_3", 192, (7, 1))),
        _chain(
            _conv("branch7x7dbl_1", width),
            _conv("branch7x7dbl_2", width, (7, 1)),
            _conv("branch7x7dbl_3", width, (1, 7)),
            _conv("branch7x7dbl_4", width, (7, 1)),
            _conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        _chain(_average, _conv("branch_pool", 192)),
    )


def _block_8(pool: Layer) -> Layer:
    return _fork(
        _conv("branch1x1", 320),
        _chain(
            _conv("branch3x3_1", 384),
            _fork(_conv("branch3x3_2a", 384, (1, 3)), _conv("branch3x3_2b", 384, (3, 1))),
        ),
        _chain(
            _conv("branch3x3dbl_1", 448),
            _conv("branch3x3dbl_2", 384, (3, 3)),
            _fork(_conv("branch3x3dbl_3a", 384, (1, 3)), _conv("branch3x3dbl_3b", 384, (3, 1))),
        ),
        _chain(pool, _conv("branch_pool", 192)),
    )


_TO_17 = _fork(
    _conv("branch3x3", 384, (3, 3), 2, "VALID"),
    _chain(
        _conv("branch3x3dbl_1", 64),
        _conv("branch3x3dbl_2", 96, (3, 3)),
        _conv("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
    ),
    _halve,
)

_TO_8 = _fork(
    _chain(_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, (3, 3), 2, "VALID")),
    _chain(
        _conv("branch7x7x3_1", 192),
        _conv("branch7x7x3_2", 192, (1, 7)),
        _conv("branch7x7x3_3", 192, (7, 1)),
        _conv("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
    ),
    _halve,
)


class Mixed(nn.Module):
    """Branches over one input, concatenated. [b, h, w, c] -> [b, h', w', c']."""

    branches: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.branches(x)


def _mixed(name: str, branches: Layer) -> Layer:
    return lambda x: Mixed(branches, name=name)(x)


# The layers before each tap, by the tap's number of features. Modules are named as in the PyTorch keys.
_STAGES: dict[int, Layer] = {
    64: _chain(
        _conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
        _conv("Conv2d_2a_3x3", 32, (3, 3), padding="VALID"),
        _conv("Conv2d_2b_3x3", 64, (3, 3)),
        _halve,
    ),
    192: _chain(_conv("Conv2d_3b_1x1", 80), _conv("Conv2d_4a_3x3", 192, (3, 3), padding="VALID"), _halve),
    768: _chain(
        _mixed("Mixed_5b", _block_35(32)),
        _mixed("Mixed_5c", _block_35(64)),
        _mixed("Mixed_5d", _block_35(64)),
        _mixed("Mixed_6a", _TO_17),
        _mixed("Mixed_6b", _block_17(128)),
        _mixed("Mixed_6c", _block_17(160)),
        _mixed("Mixed_6d", _block_17(160)),
        _mixed("Mixed_6e", _block_17(192)),
    ),
    2048: _chain(
        _mixed("Mixed_7a", _TO_8), _mixed("Mixed_7b", _block_8(_average)), _mixed("Mixed_7c", _block_8(_maximum))
    ),
}


class InceptionV3(nn.Module):
    """Images [b, 299, 299, 3] in [-1, 1] -> spatial means of four layers, {64: [b, 64], 192:, 768:, 2048:}."""

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[int, jax.Array]:
        taps = {}
        for features, stage in _STAGES.items():
            x = stage(x)
            taps[features] = x.mean(axis=(1, 2))
        return taps


def _scale_then_resize(images: jax.Array) -> jax.Array:
    """As in pytorch-fid."""
    return 2 * resize.resize(images.astype(jnp.float32) / 255, SIZE, "half_pixel") - 1


def _resize_then_scale(images: jax.Array) -> jax.Array:
    """As in the original TensorFlow graph of the FID, and in torch-fidelity."""
    return (resize.resize(images.astype(jnp.float32), SIZE, "tf1") - 128) / 128


# uint8 [b, H, W, 3] -> float32 [b, 299, 299, 3], about [-1, 1]
PREPROCESS = {"tf1": _resize_then_scale, "half_pixel": _scale_then_resize}


def _apply(preprocess: Layer, params, images: jax.Array) -> jax.Array:
    return InceptionV3().apply({"params": params}, preprocess(images))[2048]


# One function object per rule, so that each is compiled once.
_APPLY = {rule: functools.partial(_apply, preprocess) for rule, preprocess in PREPROCESS.items()}


def make(request: Request) -> Features:
    """The FID's features, D = 2048. Distances with different weights or resize rules are not comparable.

    InputError for weights that cannot be downloaded or read, those of another network, or an unknown resize rule.
    """
    return processes.on_all(lambda: _load(request))  # the download may fail on one host


def _load(request: Request) -> Features:
    if request.weights is None:
        remedy = "download it by other means and give --inception_weights=PATH"
        path = download.fetch(URL, SHA256, disk.cache() / "weights" / URL.rpartition("/")[2], remedy)
    else:
        path = Path(request.weights)
    found, rule = download.sha256_of(path), request.resize or RULE
    try:
        made = network(weights.read(path), rule)
    except InputError as error:
        raise InputError(f"{error} (SHA-256 expected for the FID: {SHA256}, found: {found})") from error
    return Features(request.name, made, found[: fingerprint.DIGITS], rule)


def network(arrays: Mapping[str, np.ndarray], rule: str) -> Network:
    """The network with weights by PyTorch key, as from `weights.read`, and a resize rule, one of `resize.RULES`.

    InputError for another rule or for the weights of another network.
    """
    if rule not in _APPLY:
        raise InputError(f"unknown resize rule {rule!r}: use one of {', '.join(_APPLY)}")
    params = weights.convert(InceptionV3(), SIZE, arrays, lambda path: (f"{path}.conv", f"{path}.bn"), "fc.")
    return Network(_APPLY[rule], params, BATCH_SIZE)
