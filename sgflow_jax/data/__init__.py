"""Data sets by name. Their batches are pure functions of (seed, step): a resumed run sees what it would have seen."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax import oracles
from sgflow_jax.data import memory, points, records
from sgflow_jax.data.memory import Images
from sgflow_jax.data.points import EIGHT_GAUSSIANS, MIXTURE1D, Points
from sgflow_jax.data.records import Records
from sgflow_jax.data.source import Source
from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError

__all__ = [
    "SPLITS",
    "Images",
    "Points",
    "Records",
    "Source",
    "batch_like",
    "check_split",
    "density",
    "make",
    "names",
    "num_classes",
    "oracle",
    "shape",
    "splits",
    "to_examples",
    "to_float",
]

SPLITS = ("train", "test")

# Shapes stand here so that evaluation knows them without reading the data.
_SHAPES = {
    "digits": (8, 8, 1),
    "cifar10": memory.CIFAR10_SHAPE,
    "imagenet32": (32, 32, 3),
    "imagenet64": (64, 64, 3),
    "mixture1d": (1,),
    "eight_gaussians": (2,),
    "checkerboard": (2,),
}
_CLASSES = {"digits": 10, "cifar10": memory.CIFAR10_CLASSES}
_WITHOUT_TEST = {"digits"}
_IMAGES = {"digits": memory.digits, "cifar10": memory.cifar10}
# What TFDS calls them.
_RECORDS = {"imagenet32": "downsampled_imagenet/32x32", "imagenet64": "downsampled_imagenet/64x64"}
_POINTS = {
    "mixture1d": points.mixture1d,
    "eight_gaussians": points.eight_gaussians,
    "checkerboard": points.checkerboard,
}


def names() -> tuple[str, ...]:
    """Every data set."""
    return tuple(_SHAPES)


def shape(name: str) -> tuple[int, ...]:
    """The shape of one example, (H, W, C) or (D,), without reading any; InputError for an unknown name."""
    if name not in _SHAPES:
        raise InputError(f"unknown data set {name!r}: use one of {', '.join(names())}")
    return _SHAPES[name]


def num_classes(name: str) -> int:
    """Labels are 0 to num_classes - 1; 0 for data without labels. InputError for an unknown name."""
    shape(name)
    return _CLASSES.get(name, 0)


def splits(name: str) -> tuple[str, ...]:
    """The parts a data set has: ("train",), or with "test". InputError for an unknown name."""
    shape(name)
    return SPLITS[:1] if name in _WITHOUT_TEST else SPLITS


def check_split(name: str, split: str) -> None:
    """InputError if a data set has no such split."""
    if split not in splits(name):
        raise InputError(f"{name} has no split {split!r}: use {' or '.join(splits(name))}")


def make(name: str, data_dir: str = "", flip: bool = False, split: str = "train", num_workers: int = 0) -> Source:
    """The data set called `name`. InputError if unknown, or not prepared in data_dir.

    num_workers: processes that decode data which are not in memory; 0 leaves it to threads of this one.
    """
    check_split(name, split)
    data_dir = places.path("data.data_dir", data_dir)
    if num_workers < 0:
        raise InputError(f"data.num_workers is {num_workers}: use 0 (threads) or a number of processes")
    if name in _IMAGES:
        return _IMAGES[name](data_dir, flip, split)
    if name in _RECORDS:
        return records.imagenet(name, _RECORDS[name], shape(name), data_dir, flip, split, num_workers)
    if flip:
        raise InputError(f"{name} are points and cannot be flipped: set data.flip to False")
    return Points(_POINTS[name], name, split)


def batch_like(name: str, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch, without reading any."""
    kind = jnp.uint8 if len(shape(name)) == 3 else jnp.float32
    return {
        "x": jax.ShapeDtypeStruct((batch_size, *shape(name)), kind),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }


def oracle(name: str, path: str = "linear") -> oracles.Oracle | None:
    """The exact law of a data set, where it is known, on the interpolant called `path`."""
    laws = {"mixture1d": MIXTURE1D, "eight_gaussians": EIGHT_GAUSSIANS}
    return oracles.gaussian_mixture(**laws[name], interpolant=path) if name in laws else None


def density(name: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """The exact density of a data set of points [n, D], as [n], where it is known."""
    law = oracle(name)
    return None if law is None else lambda x: np.asarray(law.density(jnp.asarray(x, jnp.float32)))


def to_float(x: jax.Array) -> jax.Array:
    """uint8 images as float32 in [-1, 1]; points as they are."""
    return x.astype(jnp.float32) / 127.5 - 1 if x.dtype == jnp.uint8 else x


def to_examples(x: jax.Array) -> jax.Array:
    """The inverse of `to_float`: [B, H, W, C] rounded to uint8, points [B, D] as they are."""
    return jnp.round(jnp.clip((x + 1) * 127.5, 0, 255)).astype(jnp.uint8) if x.ndim == 4 else x
