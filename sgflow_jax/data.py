"""Data sets, and batches that are a pure function of (seed, step): a resumed run sees what it would have seen."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax import oracles
from sgflow_jax.interfaces import InputError

MIXTURE1D = dict(weights=(0.6, 0.4), means=(-1.5, 2.0), stds=(0.4, 0.6))
# On a circle of radius 2.
EIGHT_GAUSSIANS = dict(
    weights=(1 / 8,) * 8,
    means=tuple((2 * np.cos(k * np.pi / 4), 2 * np.sin(k * np.pi / 4)) for k in range(8)),
    stds=(0.1,) * 8,
)
# Tags that keep the random streams of one seed apart.
_ORDER, _FLIP, _DRAW, _REFERENCE, _TEST = range(5)
_REFERENCE_POINTS = 50_000
SPLITS = ("train", "test")


class Source(Protocol):
    """A data set."""

    def batch(self, seed: int, step: int, batch_size: int, rows: slice) -> dict[str, np.ndarray]:
        """The rows `rows` of batch `step`: "x" [b, ...], uint8 images or float32 points, and "label" [b] int32."""

    def reference(self) -> np.ndarray:
        """The examples that generated ones are compared with, [N, ...]."""


@dataclasses.dataclass(frozen=True)
class Images:
    """Images in memory: images uint8 [N, H, W, C], labels int32 [N]. Each epoch is one permutation of them all."""

    images: np.ndarray
    labels: np.ndarray
    flip: bool

    def batch(self, seed, step, batch_size, rows):
        epochs, places = np.divmod(step * batch_size + np.arange(batch_size)[rows], len(self.images))
        index = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            index[here] = _permutation(seed, int(epoch), len(self.images))[places[here]]

        x = self.images[index]
        if self.flip:
            mirrored = np.random.default_rng([_FLIP, seed, step]).random(batch_size)[rows] < 0.5
            x = np.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
        return {"x": x, "label": self.labels[index]}

    def reference(self):
        return self.images


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(n)


@dataclasses.dataclass(frozen=True)
class Points:
    """An endless stream of points: draw(rng, n) -> float32 [n, D]."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    split: str = "train"

    def batch(self, seed, step, batch_size, rows):
        x = self.draw(np.random.default_rng([_DRAW, seed, step]), batch_size)[rows]
        return {"x": x.astype(np.float32), "label": np.zeros(len(x), np.int32)}

    def reference(self):
        tag = _REFERENCE if self.split == "train" else _TEST
        return self.draw(np.random.default_rng(tag), _REFERENCE_POINTS).astype(np.float32)


def _digits(data_dir: str, flip: bool, split: str) -> Images:
    from sklearn.datasets import load_digits  # a second of import that other data sets need not pay

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return Images(images[..., None], digits.target.astype(np.int32), flip)


def _cifar10(data_dir: str, flip: bool, split: str) -> Images:
    import tensorflow_datasets as tfds  # likewise

    try:
        source = tfds.data_source(
            "cifar10",
            split=split,
            data_dir=data_dir or None,
            download=False,
            builder_kwargs={"file_format": "array_record"},
        )
        examples = [source[i] for i in range(len(source))]
    except Exception as error:  # TFDS raises many kinds, all of which mean that there is nothing to read
        place = data_dir or os.environ.get("TFDS_DATA_DIR") or "the default directory of TFDS"
        raise InputError(
            f"cifar10 is not prepared in {place} ({type(error).__name__}): run `make data`, which installs TensorFlow "
            "for the purpose, or set --config.data.data_dir or TFDS_DATA_DIR to where it is in array_record format"
        ) from error
    images = np.stack([example["image"] for example in examples])
    return Images(images, np.array([example["label"] for example in examples], np.int32), flip)


def _mixture1d(rng, n):
    k = rng.choice(len(MIXTURE1D["weights"]), n, p=MIXTURE1D["weights"])
    return (np.array(MIXTURE1D["means"])[k] + np.array(MIXTURE1D["stds"])[k] * rng.standard_normal(n))[:, None]


def _eight_gaussians(rng, n):
    k = rng.integers(8, size=n)
    stds = np.array(EIGHT_GAUSSIANS["stds"])[k, None]
    return np.array(EIGHT_GAUSSIANS["means"])[k] + stds * rng.standard_normal((n, 2))


def _checkerboard(rng, n):
    """The black squares of a 4 x 4 board on [-2, 2]^2."""
    column, row = rng.integers(4, size=n), rng.integers(2, size=n)
    corner = np.stack([column, 2 * row + column % 2], axis=1) - 2
    return corner + rng.random((n, 2))


# Shapes stand here so that evaluation knows them without reading the data.
_SHAPES = {
    "digits": (8, 8, 1),
    "cifar10": (32, 32, 3),
    "mixture1d": (1,),
    "eight_gaussians": (2,),
    "checkerboard": (2,),
}
_CLASSES = {"digits": 10, "cifar10": 10}
_WITHOUT_TEST = {"digits"}
_IMAGES = {"digits": _digits, "cifar10": _cifar10}
_POINTS = {"mixture1d": _mixture1d, "eight_gaussians": _eight_gaussians, "checkerboard": _checkerboard}


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


def make(name: str, data_dir: str = "", flip: bool = False, split: str = "train") -> Source:
    """The data set called `name`, images read into memory. InputError if unknown, or not prepared in data_dir."""
    check_split(name, split)
    if len(shape(name)) == 3:
        return _IMAGES[name](data_dir, flip, split)
    if flip:
        raise InputError(f"{name} are points and cannot be flipped: set data.flip to False")
    return Points(_POINTS[name], split)


def oracle(name: str, path: str = "linear") -> oracles.Oracle | None:
    """The exact law of a data set, where it is known, on the interpolant called `path`."""
    laws = {"mixture1d": MIXTURE1D, "eight_gaussians": EIGHT_GAUSSIANS}
    return oracles.gaussian_mixture(**laws[name], path=path) if name in laws else None


def to_float(x: jax.Array) -> jax.Array:
    """uint8 images as float32 in [-1, 1]; points as they are."""
    return x.astype(jnp.float32) / 127.5 - 1 if x.dtype == jnp.uint8 else x


def to_examples(x: jax.Array) -> jax.Array:
    """The inverse of `to_float`: [B, H, W, C] rounded to uint8, points [B, D] as they are."""
    return jnp.round(jnp.clip((x + 1) * 127.5, 0, 255)).astype(jnp.uint8) if x.ndim == 4 else x
