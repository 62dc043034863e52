"""Data sets by name. A batch is a pure function of (seed, step), so that a resumed run sees the same batches.

Most functions take a selection: a `Request`, or a configuration's section `data`, whose fields have the same names.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgflow_jax import oracles
from sgflow_jax.data import memory, own, pictures, points, records
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
    "Request",
    "Source",
    "batch_like",
    "check_split",
    "classes",
    "density",
    "licence",
    "make",
    "names",
    "of_points",
    "oracle",
    "read",
    "request",
    "shape",
    "splits",
    "title",
    "to_examples",
    "to_float",
]

SPLITS = ("train", "test")


def _always(value: tuple[str, ...]) -> Callable[[Request], tuple[str, ...]]:
    return lambda _: value


class DataSet(NamedTuple):
    """shape: of one example as stored, (H, W, C) uint8 or (D,) float32; None where the request decides. read: opens it;
    InputError if it is not prepared. classes: names of the labels, () for data without labels. law: arguments of
    `oracles.gaussian_mixture` where the distribution is one, None elsewhere. licence: see `licence`."""

    shape: tuple[int, ...] | None
    read: Callable[[Request], Source]
    classes: Callable[[Request], tuple[str, ...]] = _always(())
    splits: Callable[[Request], tuple[str, ...]] = _always(SPLITS)
    law: dict[str, Any] | None = None
    licence: str = "not known here"


def _see(page: str) -> str:
    return f"see the data set's page, {page}"


def _points(dimension: int, draw: points.Draw, law: dict[str, Any] | None = None) -> DataSet:
    return DataSet(
        (dimension,), functools.partial(points.make, draw), law=law, licence="none: a formula draws the points"
    )


def _imagenet(size: int) -> DataSet:
    return DataSet(
        (size, size, 3), functools.partial(records.imagenet, size), licence=_see("https://www.image-net.org")
    )


_OWN = DataSet(None, own.read, own.classes, own.splits, licence="only the owner of the images knows it: state it here")
_DIGITS = _see("https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits")
_CIFAR10 = _see("https://www.cs.toronto.edu/~kriz/cifar.html")
_DATA_SETS = {
    "digits": DataSet((8, 8, 1), memory.digits, _always(memory.DIGITS_CLASSES), _always(("train",)), licence=_DIGITS),
    "cifar10": DataSet(memory.CIFAR10_SHAPE, memory.cifar10, _always(memory.CIFAR10_CLASSES), licence=_CIFAR10),
    "images": _OWN,
    "imagenet32": _imagenet(32),
    "imagenet64": _imagenet(64),
    "mixture1d": _points(1, points.mixture1d, points.MIXTURE1D),
    "eight_gaussians": _points(2, points.eight_gaussians, points.EIGHT_GAUSSIANS),
    "checkerboard": _points(2, points.checkerboard),
}


def names() -> tuple[str, ...]:
    """Every data set with a name of its own; besides there is tfds:NAME for each that TFDS has prepared."""
    return tuple(_DATA_SETS)


def _data_set(name: str) -> DataSet:
    if (name or "").startswith(own.TFDS):
        return _OWN
    if name not in _DATA_SETS:
        raise InputError(f"unknown data set {name!r}: use one of {', '.join(names())}, or tfds:NAME")
    return _DATA_SETS[name]


def request(section: Any, split: str = "train") -> Request:
    """The request for a configuration's section `data`."""
    return Request(**{field: getattr(section, field) for field in Request._fields if field != "split"}, split=split)


def _checked(selection: Any) -> Request:
    """The request for a selection, with its paths expanded. InputError as in `shape`."""
    shape(selection)
    found = selection if isinstance(selection, Request) else request(selection)
    return found._replace(
        data_dir=places.path("config.data.data_dir", found.data_dir), dir=places.path("config.data.dir", found.dir)
    )


def shape(selection: Any) -> tuple[int, ...]:
    """The shape of one example, (H, W, C) or (D,), without reading any. InputError for an unknown name, or fields that
    the data set cannot have."""
    name, size, channels = selection.name, selection.size, selection.channels
    stored = _data_set(name).shape
    if name != "images" and (selection.dir or selection.test_share):
        raise InputError(f"config.data.dir and test_share are for the data set images, not {name}: leave them out")
    if stored is not None and len(stored) == 1:
        if size or channels:
            raise InputError(f"{name} consists of points: set data.size and data.channels to 0")
        return stored
    if channels not in (0, *pictures.CHANNELS):
        raise InputError(f"config.data.channels is {channels}: use 1 (grey), 3 (RGB), or 0 for the data set's own")
    if stored is None and not size:
        raise InputError(f"config.data.size is 0: {name} may have images of any size, so give one, like 64")
    height, width, own_channels = stored or (size, size, 3)
    return size or height, size or width, channels or own_channels


def classes(selection: Any) -> tuple[str, ...]:
    """The names of the labels 0, 1, ...; () for data without labels. Prepares `images` and tfds:NAME if that was not
    done before. InputError for an unknown name, or as in `read`."""
    return _data_set(selection.name).classes(_checked(selection))


def title(selection: Any) -> str:
    """The name of a data set in results and file names; it has the size of images that are not in their own."""
    name = re.sub(r"[^\w.+,-]", "-", selection.name)
    return name if len(shape(selection)) == 1 or not selection.size else f"{name}-{selection.size}"


def licence(selection: Any) -> str:
    """What is known of a data set's licence, in words: at most where to read it."""
    name = selection.name
    if name.startswith(own.TFDS):
        return _see("https://www.tensorflow.org/datasets/catalog/" + name.removeprefix(own.TFDS).partition("/")[0])
    return _data_set(name).licence


def of_points(title: str) -> bool:
    """Whether the data set with this `title` consists of points, not images."""
    return title in _DATA_SETS and len(_DATA_SETS[title].shape or ()) == 1


def splits(selection: Any) -> tuple[str, ...]:
    """The splits of a data set: ("train",) or ("train", "test"). Prepares tfds:NAME if that was not done before.
    InputError as in `classes`."""
    return _data_set(selection.name).splits(_checked(selection))


def check_split(selection: Any, split: str) -> None:
    """InputError if the data set has no such split."""
    if split not in splits(selection):
        raise InputError(f"{selection.name} has no split {split!r}: use {' or '.join(splits(selection))}")


def make(name: str, data_dir: str = "", **options: Any) -> Source:
    """As `read`, for the fields of a `Request`."""
    return read(Request(name, data_dir, **options))


def read(request: Request) -> Source:
    """Opens a data set. InputError if it is unknown, not prepared, or cannot be read as requested."""
    check_split(request, request.split)
    if request.num_workers < 0:
        raise InputError(f"data.num_workers is {request.num_workers}: use 0 (threads) or a number of processes")
    return _data_set(request.name).read(_checked(request))


def batch_like(selection: Any, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a batch, without reading any data."""
    dtype = jnp.uint8 if len(shape(selection)) == 3 else jnp.float32
    return {
        "x": jax.ShapeDtypeStruct((batch_size, *shape(selection)), dtype),
        "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
    }


def oracle(name: str, interpolant: str = "linear") -> oracles.Oracle | None:
    """The exact distribution of a data set on an interpolant; None if it is unknown."""
    law = _DATA_SETS[name].law if name in _DATA_SETS else None
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
