"""Prepared images: array_record files, labels and facts in a directory of the user's cache."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

FACTS = "facts.json"  # the file that a complete directory has
_CHUNK = 1000  # images read at once


class Part(NamedTuple):
    """A split. size: number of images. fingerprint: of all, see `fingerprint.of_examples`. files: their names."""

    size: int
    fingerprint: str
    files: list[str]


@dataclasses.dataclass(frozen=True)
class Collection:
    """Prepared images. title: of their origin. damaged: name and fault of each image that cannot be read. parts: by
    split, those with images. notes: what was left out, a line each."""

    place: Path
    title: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    damaged: list[tuple[str, str]]
    notes: list[str]
    parts: dict[str, Part]

    def labels(self, split: str) -> np.ndarray:
        """int32 [n]. InputError if the file is damaged."""
        try:
            found = np.load(self.place / labels_file(split), allow_pickle=False)
        except Exception as error:  # np.load raises any kind
            raise damaged_cache(self.place, type(error).__name__) from error
        if found.shape != (self.parts[split].size,):
            raise damaged_cache(self.place, f"{len(found)} labels")
        return found

    def images(self, split: str) -> "Shards":
        """The images of a split. InputError if files are missing."""
        part = self.parts[split]
        found = Shards(self.place, part.files, self.shape)
        if len(found) != part.size:
            raise damaged_cache(self.place, f"{len(found)} images in place of {part.size}")
        return found


class Shards:
    """Images in array_record files, by index. It can be pickled; files are reopened."""

    def __init__(self, place: Path, files: Iterable[str], shape: tuple[int, int, int]):
        """InputError if a file is missing."""
        from array_record.python.array_record_data_source import ArrayRecordDataSource  # takes a second to import

        self._place, self.shape = place, shape
        try:
            self._source = ArrayRecordDataSource([str(place / file) for file in files])
        except Exception as error:  # the exception depends on what is wrong
            raise damaged_cache(place, type(error).__name__) from error

    def __len__(self) -> int:
        return len(self._source)

    def images(self, indices: Iterable[int]) -> np.ndarray:
        """uint8 [n, H, W, C]. InputError if the files are damaged."""
        try:
            records = self._source.__getitems__([int(index) for index in indices])
            return np.stack([np.frombuffer(record, np.uint8).reshape(self.shape) for record in records])
        except Exception as error:
            raise damaged_cache(self._place, type(error).__name__) from error

    def all(self) -> np.ndarray:
        """Every image, uint8 [N, H, W, C]."""
        found = np.empty((len(self), *self.shape), np.uint8)
        for start in range(0, len(self), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(self)))
            found[start : chunk.stop] = self.images(chunk)
        return found


def read(place: Path, title: str, shape: tuple[int, int, int]) -> Collection:
    """The images in a complete directory. title, shape: see `Collection`. InputError if it is damaged."""
    try:
        facts = disk.from_json((place / FACTS).read_text())
        return Collection(
            place=place,
            title=title,
            shape=shape,
            classes=tuple(facts["classes"]),
            damaged=[tuple(pair) for pair in facts["damaged"]],
            notes=facts["notes"],
            parts={split: Part(**part) for split, part in facts["parts"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged_cache(place, f"{FACTS}: {type(error).__name__}") from error


def damaged_cache(place: Path, fault: str) -> InputError:
    """The InputError for prepared files that are damaged."""
    return InputError(f"the prepared images in {place} are damaged ({fault}): remove that directory and start again")


def labels_file(split: str) -> str:
    """The name of the file with the labels of a split."""
    return f"labels-{split}.npy"
