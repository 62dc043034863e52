"""Data sets by name. A batch is a pure function of (seed, step), so that a resumed run sees the same batches."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax import oracles
from sgflow_jax.data import memory, points, records
from sgflow_jax.data.memory import Images
from sgflow_jax.data.points import Points
from sgflow_jax.data.records import Records
from sgflow_jax.data.source import Request, Source
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


class DataSet(NamedTuple):
    """shape: of one example, (H, W, C) uint8 or (D,) float32. read: opens it; InputError if it is not prepared.
    classes: number of labels, 0 for data without labels. law: arguments of `oracles.gaussian_mixture` where the
    distribution is one, None elsewhere."""

    shape: tuple[int, ...]
    read: Callable[[Request], Source]
    classes: int = 0
    splits: tuple[str, ...] = SPLITS
    law: dict[str, Any] | None = None


def _points(dimension: int, draw: points.Draw, law: dict[str, Any] | None = None) -> DataSet:
    return DataSet((dimension,), functools.partial(points.make, draw), law=law)


def _imagenet(size: int) -> DataSet:
    return DataSet((size, size, 3), functools.partial(records.imagenet, size))


_DATA_SETS = {
    "digits": DataSet((8, 8, 1), memory.digits, classes=10, splits=("train",)),
    "cifar10": DataSet(memory.CIFAR10_SHAPE, memory.cifar10, classes=memory.CIFAR10_CLASSES),
    "imagenet32": _imagenet(32),
    "imagenet64": _imagenet(64),
    "mixture1d": _points(1, points.mixture1d, points.MIXTURE1D),
    "eight_gaussians": _points(2, points.eight_gaussians, points.EIGHT_GAUSSIANS),
    "checkerboard": _points(2, points.checkerboard),
}


def names() -> tuple[str, ...]:
    """Every data set."""
    return tuple(_DATA_SETS)


def _data_set(name: str) -> DataSet:
    if name not in _DATA_SETS:
        raise InputError(f"unknown data set {name!r}: use one of {', '.join(names())}")
    return _DATA_SETS[name]


def shape(name: str) -> tuple[int, ...]:
    """The shape of one example, (H, W, C) or (D,), without reading any; InputError for an unknown name."""
    return _data_set(name).shape


def num_classes(name: str) -> int:
    """Labels are 0 to num_classes - 1; 0 for data without labels. InputError for an unknown name."""
    return _data_set(name).classes


def splits(name: str) -> tuple[str, ...]:
    """The splits of a data set: ("train",) or ("train", "test"). InputError for an unknown name."""
    return _data_set(name).splits


def check_split(name: str, split: str) -> None:
    """InputError if the data set has no such split."""
    if split not in splits(name):
        raise InputError(f"{name} has no split {split!r}: use {' or '.join(splits(name))}")


def make(name: str, data_dir: str = "", flip: bool = False, split: str = "train", num_workers: int = 0) -> Source:
    """Opens the data set called `name`. InputError if it is unknown or not prepared in data_dir.

    num_workers: processes that decode data too large for memory; 0 decodes in threads of this process.
    """
    check_split(name, split)
    data_dir = places.path("data.data_dir", data_dir)
    if num_workers < 0:
        raise InputError(f"data.num_workers is {num_workers}: use 0 (threads) or a number of processes")
    return _data_set(name).read(Request(name, data_dir, flip, split, num_workers))


def batch_like(name: str, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch, without reading any data."""
    dtype = jnp.uint8 if len(shape(name)) == 3 else jnp.float32
    return {
        "x": jax.ShapeDtypeStruct((batch_size, *shape(name)), dtype),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }


def oracle(name: str, interpolant: str = "linear") -> oracles.Oracle | None:
    """The exact distribution of a data set on an interpolant; None if it is unknown."""
    law = _data_set(name).law
    return None if law is None else oracles.gaussian_mixture(**law, interpolant=interpolant)


def density(name: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """The exact density of a data set as a function of points, [n, D] -> [n]; None if it is unknown."""
    law = oracle(name)
    return None if law is None else lambda x: np.asarray(law.density(jnp.asarray(x, jnp.float32)))


def to_float(x: jax.Array) -> jax.Array:
    """uint8 images as float32 in [-1, 1]; points unchanged."""
    return x.astype(jnp.float32) / 127.5 - 1 if x.dtype == jnp.uint8 else x


def to_examples(x: jax.Array) -> jax.Array:
    """The inverse of `to_float`: [B, H, W, C] rounded to uint8, points [B, D] unchanged."""
    return jnp.round(jnp.clip((x + 1) * 127.5, 0, 255)).astype(jnp.uint8) if x.ndim == 4 else x
