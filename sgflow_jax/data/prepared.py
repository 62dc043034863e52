"""Data sets that TFDS has prepared in the array_record format, read by random access and without TensorFlow."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError

Example = dict[str, Any]


class Split:
    """One part of a prepared data set. It can be pickled: what it reads from is opened again."""

    def __init__(self, source, title: str, command: str):
        """source: of TFDS. title: what it is and where. command: prepares it."""
        self._source, self._title, self._command = source, title, command

    def __len__(self) -> int:
        return len(self._source)

    def examples(self, indices: Iterable[int]) -> list[Example]:
        """The examples `indices`, decoded, in that order; InputError if what is there is damaged."""
        try:
            return self._source.__getitems__([int(index) for index in indices])
        except Exception as error:  # what is raised depends on which byte is damaged
            raise self.damaged(type(error).__name__) from error

    def images(self, examples: list[Example], indices: Iterable[int], shape: tuple[int, ...]) -> np.ndarray:
        """The images of examples, whose numbers are `indices`, in one array uint8 [n, *shape]; InputError if one has
        another shape or type, or is none."""
        images = [np.asarray(example.get("image")) for example in examples]
        for index, image in zip(indices, images, strict=True):
            if image.shape != shape or image.dtype != np.uint8:
                raise self.damaged(f"image {index} is {image.dtype} {image.shape}, not uint8 {shape}")
        return np.stack(images)

    def labels(self, examples: list[Example], classes: int) -> np.ndarray:
        """The labels of the first examples, int32 [n]; InputError if one is not among 0 to classes - 1."""
        labels = [example.get("label") for example in examples]
        for index, label in enumerate(labels):
            if not isinstance(label, int | np.integer) or not 0 <= label < classes:
                raise self.damaged(f"the label of image {index} is {label}, not one of 0 to {classes - 1}")
        return np.array(labels, np.int32)

    def damaged(self, fault: str) -> InputError:
        """The error that says so."""
        return InputError(f"{self._title} is damaged ({fault}): remove it and run `{self._command}` again")


def open_split(name: str, tfds_name: str, split: str, data_dir: str, command: str) -> Split:
    """A split of the data set that is `tfds_name` to TFDS and `name` to the user; command: prepares it.

    InputError if it is not prepared in data_dir, or for "" in TFDS's own place.
    """
    import tensorflow_datasets as tfds  # half a second of import that other data sets need not pay

    found = data_dir or places.path("TFDS_DATA_DIR", os.environ.get("TFDS_DATA_DIR", ""))
    place = found or "the default directory of TFDS"
    try:
        source = tfds.data_source(
            tfds_name,
            split=split,
            data_dir=found or None,
            download=False,
            builder_kwargs={"file_format": "array_record"},
        )
    except Exception as error:  # TFDS raises many kinds, all of which mean that there is nothing to read
        raise InputError(
            f"{name} is not prepared in {place} ({type(error).__name__}): run `{command}`, which installs TensorFlow "
            "for the purpose, or set --config.data.data_dir or TFDS_DATA_DIR to where it is in array_record format"
        ) from error
    opened = Split(source, f"{name} in {place}", command)
    if not len(opened):
        raise opened.damaged("it is empty")
    return opened
