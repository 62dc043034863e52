"""Where --mode=sample writes: an .npz file and pictures beside it, or a directory of PNG files for other tools."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from sgflow_jax import data
from sgflow_jax.display import figures
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

NAME_BYTES = 150  # of a class in a file name, which 255 bytes limit
_NUMBERED = re.compile(r"\d{6,}(_.*)?\.png", re.DOTALL)


class Samples(NamedTuple):
    """examples: by the number of network calls, uint8 [n, H, W, C] or float32 [n, D] points of the data set `title`.
    labels: int32 [n], or None. names: of the classes. between: interpolations [pairs, positions, ...], or None."""

    title: str
    examples: dict[int, np.ndarray]
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    between: np.ndarray | None = None


class Target(Protocol):
    """Made by `target`, which has checked that it can be written."""

    def write(self, samples: Samples) -> list[str]:
        """Writes everything; returns lines that name the files."""


def target(out: str, calls: Sequence[int], of_points: bool) -> Target:
    """The target that --out names: a directory, if `out` ends with a slash or is one; else an .npz file.

    calls: numbers of network calls. InputError if it cannot be written, or has files that would be overwritten; writes
    nothing.
    """
    folder = Path(out)
    if not out.endswith(("/", os.sep)) and (folder.suffix == ".npz" or not folder.is_dir()):
        return _archive(folder)
    if of_points:
        raise InputError(f"--out={out} is a directory, for images, and these are points: use a name that ends in .npz")
    folders = {n: folder / f"steps_{n}" if len(calls) > 1 else folder for n in calls}
    found = Folder(folder, folders)
    for each in dict.fromkeys([*folders.values(), folder]):
        disk.check_writable(each / "000000.png")
        if taken := next((name for name in _names(each) if found.would_write(name)), None):
            raise InputError(f"{each} has samples already ({taken}): use another --out, nothing is overwritten")
    return found


class Archive(NamedTuple):
    """NAME.npz, NAME.png with the first examples, and NAME_interpolation.png."""

    file: Path
    picture: Path
    strip: Path

    def write(self, samples: Samples) -> list[str]:
        """See `Target`."""
        arrays = {f"steps_{n}": found for n, found in samples.examples.items()}
        if samples.labels is not None:
            arrays |= {"labels": samples.labels, "classes": np.array(samples.names)}
        disk.write_arrays(self.file, arrays)
        drawn = figures.by_calls(samples.examples, data.density(samples.title), samples.labels, samples.names)
        disk.write_atomically(self.picture, figures.png(drawn))
        lines = [f"wrote {self.file} ({', '.join(arrays)}) and {self.picture}"]
        return lines + _write_strip(self.strip, samples.between)


class Folder(NamedTuple):
    """One PNG file for each example. folders: by the number of network calls."""

    folder: Path
    folders: dict[int, Path]

    @property
    def strip(self) -> Path:
        """The picture of interpolations."""
        return self.folder / "interpolation.png"

    def would_write(self, name: str) -> bool:
        """Whether a file of this name could be one of these."""
        return name == self.strip.name or _NUMBERED.fullmatch(name) is not None

    def write(self, samples: Samples) -> list[str]:
        """See `Target`."""
        lines = []
        for calls, examples in samples.examples.items():
            files = list(file_names(len(examples), samples.labels, samples.names))
            images = (figures.png(example) for example in examples)
            disk.write_many((self.folders[calls] / name, image) for name, image in zip(files, images, strict=True))
            lines.append(f"wrote {len(files):,} files to {self.folders[calls]}: {files[0]} to {files[-1]}")
        return lines + _write_strip(self.strip, samples.between)


def file_names(count: int, labels: np.ndarray | None, names: Sequence[str]) -> Iterator[str]:
    """000000.png, 000001.png, ...; with labels, 000000_NAME.png by the name of the class."""
    parts = [""] * count if labels is None else [f"_{_safe(names[label])}" for label in labels[:count]]
    for number, part in enumerate(parts):
        yield f"{number:06d}{part}.png"


def _safe(name: str) -> str:
    """A name that can be part of a file's."""
    name = "".join("_" if c in "/\\" or not c.isprintable() else c for c in name)
    return name.encode(errors="replace")[:NAME_BYTES].decode(errors="ignore")


def _archive(file: Path) -> Archive:
    if file.suffix != ".npz" or not file.parent.is_dir():
        raise InputError(
            f"--out={file}: use a name that ends in .npz, in a directory that exists, or for PNG files a directory, "
            "DIR/"
        )
    found = Archive(file, file.with_suffix(".png"), file.with_name(f"{file.stem}_interpolation.png"))
    disk.check_writable(*found)
    return found


def _names(folder: Path) -> list[str]:
    """What a directory contains, in order; nothing if there is none. InputError if it cannot be listed."""
    try:
        return sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): use another --out") from error


def _write_strip(file: Path, between: np.ndarray | None) -> list[str]:
    if between is None:
        return []
    disk.write_atomically(file, figures.png(figures.image_grid(list(between))))
    return [f"wrote {file}"]
