"""Data sets that TFDS has prepared in the array_record format, read by random access and without TensorFlow."""

import os
from collections.abc import Iterable
from typing import Any

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

    def damaged(self, fault: str) -> InputError:
        """The error that says so."""
        return InputError(f"{self._title} is damaged ({fault}): remove it and run `{self._command}` again")


def open_split(name: str, tfds_name: str, split: str, data_dir: str, command: str) -> Split:
    """A split of the data set that is `tfds_name` to TFDS and `name` to the user; command: prepares it.

    InputError if it is not prepared in data_dir, or for "" in TFDS's own place.
    """
    import tensorflow_datasets as tfds  # half a second of import that other data sets need not pay

    place = data_dir or os.environ.get("TFDS_DATA_DIR") or "the default directory of TFDS"
    try:
        source = tfds.data_source(
            tfds_name,
            split=split,
            data_dir=data_dir or None,
            download=False,
            builder_kwargs={"file_format": "array_record"},
        )
    except Exception as error:  # TFDS raises many kinds, all of which mean that there is nothing to read
        raise InputError(
            f"{name} is not prepared in {place} ({type(error).__name__}): run `{command}`, which installs TensorFlow "
            "for the purpose, or set --config.data.data_dir or TFDS_DATA_DIR to where it is in array_record format"
        ) from error
    return Split(source, f"{name} in {place}", command)
