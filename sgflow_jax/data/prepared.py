"""Reads data sets that TFDS prepared in array_record format, by random access and without TensorFlow."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sgflow_jax.data import pictures
from sgflow_jax.data.origin import Loaded, Origin
from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError

Example = dict[str, Any]


class Split:
    """A split of a prepared data set. It can be pickled; files are reopened."""

    def __init__(self, source, title: str, command: str):
        """source: from TFDS. title: name and location, for errors. command: prepares the data set."""
        self._source, self._title, self._command = source, title, command

    def __len__(self) -> int:
        return len(self._source)

    def examples(self, indices: Iterable[int]) -> list[Example]:
        """The decoded examples `indices`, in that order; InputError if the files are damaged."""
        try:
            return self._source.__getitems__([int(index) for index in indices])
        except Exception as error:  # the exception depends on the damaged byte
            raise self.damaged(type(error).__name__) from error

    def images(self, examples: list[Example], indices: Iterable[int], shape: tuple[int, ...]) -> np.ndarray:
        """The images of examples as uint8 [n, *shape]; InputError if one is missing or has another shape or dtype.

        indices: the numbers of the examples, for the error."""
        images = [np.asarray(example.get("image")) for example in examples]
        for index, image in zip(indices, images, strict=True):
            if image.shape != shape or image.dtype != np.uint8:
                raise self.damaged(f"image {index} is {image.dtype} {image.shape}, not uint8 {shape}")
        return np.stack(images)

    def labels(self, examples: list[Example], classes: int) -> np.ndarray:
        """The labels of the first examples, int32 [n]; InputError if one is not in 0 to classes - 1."""
        labels = [example.get("label") for example in examples]
        for index, label in enumerate(labels):
            if not isinstance(label, int | np.integer) or not 0 <= label < classes:
                raise self.damaged(f"the label of image {index} is {label}, not one of 0 to {classes - 1}")
        return np.array(labels, np.int32)

    def damaged(self, fault: str) -> InputError:
        """The InputError for damaged files."""
        return InputError(f"{self._title} is damaged ({fault}): remove it and run `{self._command}` again")


class Pictures:
    """The images of a split, all of one shape, made `size` x `size` x `channels`. It can be pickled."""

    def __init__(self, split: Split, stored: tuple[int, int, int], size: int, channels: int):
        self._split, self._stored, self._size, self._channels = split, stored, size, channels

    def __len__(self) -> int:
        return len(self._split)

    def images(self, indices: Iterable[int]) -> np.ndarray:
        """uint8 [n, size, size, channels]; InputError if one has another shape than `stored`."""
        found = self._split.images(self._split.examples(indices), indices, self._stored)
        return pictures.fitted(found, self._size, self._channels)


class _Splits:
    """The training and test images of a data set, one after the other: see `origin.Opened`."""

    notes = ()

    def __init__(self, train: Split, test: Split | None, classes: tuple[str, ...]):
        self._train, self._test, self.classes = train, test, classes
        self.size = len(train) + (len(test) if test else 0)

    def name(self, index: int) -> str:
        first = len(self._train)
        return f"test image {index - first}" if index >= first else f"training image {index}"

    def load(self, index: int) -> Loaded:
        first = len(self._train)
        test = index >= first
        (example,) = (self._test if test else self._train).examples([index - first if test else index])
        pixels = np.asarray(example["image"])
        label = int(example["label"]) if self.classes else 0
        if pixels.dtype != np.uint8 or self.classes and not 0 <= label < len(self.classes):
            raise ValueError(f"{pixels.dtype}, label {label}")
        return Loaded(Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels), label, b"", test)


def origin(tfds_name: str, data_dir: str) -> Origin:
    """Any image data set prepared by TFDS, NAME[/CONFIG]. Its test split, or else its validation split, is the test
    split. InputError if it is not prepared, or has no images."""
    name = f"tfds:{tfds_name}"
    builder = _builder(name, tfds_name, data_dir)
    features, found = builder.info.features, builder.info.splits
    if not found:
        raise _not_prepared(name, tfds_name, data_dir, FileNotFoundError())
    if "train" not in found or "image" not in features:
        raise InputError(f"{name} has no split train with a feature image: use a data set of images")
    classes = tuple(getattr(features["label"], "names", None) or ()) if "label" in features else ()
    test = next((split for split in ("test", "validation") if split in found), None)
    folder = Path(builder.data_dir)
    key = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.iterdir())]

    def opened() -> _Splits:
        train, held_out = (split and open_split(name, tfds_name, split, data_dir) for split in ("train", test))
        return _Splits(train, held_out, classes)

    return Origin(f"{name} in {folder}", [str(folder), key], opened, True)


def open_split(name: str, tfds_name: str, split: str, data_dir: str) -> Split:
    """Opens a split of a data set, called `tfds_name` in TFDS and `name` in errors.

    InputError if it is not prepared in data_dir; "" means TFDS_DATA_DIR, or TFDS's default directory.
    """
    builder = _builder(name, tfds_name, data_dir)
    try:
        source = builder.as_data_source(split=split)
    except Exception as error:  # TFDS raises many types, all of which mean that there is nothing to read
        raise _not_prepared(name, tfds_name, data_dir, error) from error
    opened = Split(source, f"{name} in {_place(data_dir) or _DEFAULT}", _command(tfds_name))
    if not len(opened):
        raise opened.damaged("it is empty")
    return opened


def _builder(name: str, tfds_name: str, data_dir: str):
    """TFDS's access to a data set. InputError if there is none of the name."""
    import tensorflow_datasets as tfds  # takes half a second to import, which other data sets do not need

    try:
        return tfds.builder(tfds_name, data_dir=_place(data_dir) or None, file_format="array_record")
    except Exception as error:  # as in `open_split`
        raise _not_prepared(name, tfds_name, data_dir, error) from error


def _not_prepared(name: str, tfds_name: str, data_dir: str, error: Exception) -> InputError:
    return InputError(
        f"{name} is not prepared in {_place(data_dir) or _DEFAULT} ({type(error).__name__}): run in a checkout "
        f"`{_command(tfds_name)}` (which installs TensorFlow), or set --config.data.data_dir or TFDS_DATA_DIR to its "
        "directory in array_record format"
    )


_DEFAULT = "TFDS's default directory"


def _place(data_dir: str) -> str:
    return data_dir or places.path("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR", ""))


def _command(tfds_name: str) -> str:
    """What prepares a data set."""
    return "make data" if tfds_name == "cifar10" else f"make data DATASET={tfds_name}"
