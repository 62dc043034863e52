"""Reads data sets that TFDS prepared in array_record format, by random access and without TensorFlow."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

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


def open_split(name: str, tfds_name: str, split: str, data_dir: str, command: str) -> Split:
    """Opens a split of a data set, called `tfds_name` in TFDS and `name` in errors; command: prepares it.

    InputError if it is not prepared in data_dir; "" means TFDS_DATA_DIR, or TFDS's default directory.
    """
    import tensorflow_datasets as tfds  # takes half a second to import, which other data sets do not need

    found = data_dir or places.path("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR", ""))
    place = found or "TFDS's default directory"
    try:
        source = tfds.data_source(
            tfds_name,
            split=split,
            data_dir=found or None,
            download=False,
            builder_kwargs={"file_format": "array_record"},
        )
    except Exception as error:  # TFDS raises many types, all of which mean that there is nothing to read
        raise InputError(
            f"{name} is not prepared in {place} ({type(error).__name__}): run `{command}` (which installs "
            "TensorFlow), or set --config.data.data_dir or TFDS_DATA_DIR to its directory in array_record format"
        ) from error
    opened = Split(source, f"{name} in {place}", command)
    if not len(opened):
        raise opened.damaged("it is empty")
    return opened
