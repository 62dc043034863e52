"""Prepares images once, cropped and resized, into array_record files in the user's cache."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sgflow_jax import terminal
from sgflow_jax.data import fingerprint
from sgflow_jax.data.decoding import Wanted, decode_all
from sgflow_jax.data.origin import Opened, Origin
from sgflow_jax.data.shards import FACTS, Collection, Part, Shards, labels_file, read
from sgflow_jax.files import disk, locks
from sgflow_jax.interfaces import InputError

FORMAT = 1  # of these files; another number prepares everything anew
SHARD_BYTES = 2**28  # of pixels in one file
SPLITS = ("train", "test")
_PART = ".part"  # ends the name of a half-made directory
_FORGOTTEN = 3600  # age in seconds of one that is removed where there are no locks


def collection(origin: Origin, wanted: Wanted) -> Collection:
    """The images of an origin as wanted; prepares them if that was not done before.

    Two processes that need the same images wait for each other; one that is killed leaves nothing that is taken for
    complete. InputError if no image can be read, or the cache cannot be written.
    """
    known = [FORMAT, dataclasses.astuple(wanted), origin.numbered, origin.key]
    key = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:24]
    place = disk.cache() / "images" / key
    if not (place / FACTS).exists():
        opened = origin.open()  # first, so that nothing is written if there are no images
        _make_directory(place.parent)
        waiting = f"waiting for another process, which prepares {origin.title}"
        with locks.held(place.with_name(f"{key}.lock"), "" if _silent() else waiting) as locked:
            if not (place / FACTS).exists():
                _remove_parts(place, 0 if locked else _FORGOTTEN)
                _prepare(origin, opened, wanted, place)
    return read(place, origin.title, wanted.shape)


def _prepare(origin: Origin, opened: Opened, wanted: Wanted, place: Path) -> None:
    """Writes everything into a directory beside `place` that then gets its name."""
    part = place.with_name(f"{place.name}.{socket.gethostname()}-{os.getpid()}{_PART}")
    _say(f"preparing {opened.size:,} images of {origin.title}, kept in {place}")
    began = time.monotonic()
    try:
        part.mkdir()
        writers = {split: _Writer(part, split, wanted.shape) for split in SPLITS}
        damaged = []
        with contextlib.closing(decode_all(opened, wanted.pixels, _silent())) as images:
            for name, found in images:
                if isinstance(found, str):
                    damaged.append((name, found))
                else:
                    test = found.test or wanted.held_out(found.content)
                    writers[SPLITS[test]].add(found.pixels, found.label)
        parts = {split: writer.close() for split, writer in writers.items()}
        if not sum(len(labels) for _, labels in parts.values()):
            raise InputError(
                f"none of the {opened.size:,} images of {origin.title} can be read (the first is {damaged[0][0]}, "
                f"{damaged[0][1]}): use PNG, JPEG or WebP files"
            )
        classes, notes = opened.classes, list(opened.notes)
        if not origin.numbered:
            classes, more = _with_images(classes, parts)
            notes += more
        facts = {
            "title": origin.title,
            "classes": classes if len(classes) > 1 else (),
            "damaged": damaged,
            "notes": notes,
            "parts": _finished(part, parts, wanted.shape, keep_labels=len(classes) > 1),
        }
        disk.write_atomically(part / FACTS, json.dumps(facts, indent=1) + "\n")
        _name(part, place)
    except (OSError, RuntimeError) as error:  # the latter from array_record
        fault = getattr(error, "strerror", None) or str(error).partition(";")[0]
        raise InputError(
            f"the prepared images cannot be written to {place.parent} ({fault}): make room there, or set "
            "XDG_CACHE_HOME to another directory"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    seconds, count = time.monotonic() - began, opened.size - len(damaged)
    _say(f"prepared {count:,} images of {origin.title} in {seconds:.0f} s")


class _Writer:
    """Writes the images of a split into files of SHARD_BYTES."""

    def __init__(self, place: Path, split: str, shape: tuple[int, int, int]):
        self._place, self._split = place, split
        self._each = max(1, SHARD_BYTES // int(np.prod(shape)))
        self._files, self._labels, self._writer = [], [], None

    def add(self, pixels: np.ndarray, label: int) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter  # takes a second to import

        if len(self._labels) % self._each == 0:
            self._end()
            self._files.append(f"{self._split}-{len(self._files):05d}.array_record")
            self._writer = ArrayRecordWriter(str(self._place / self._files[-1]), "group_size:1")
        self._writer.write(pixels.tobytes())
        self._labels.append(label)

    def close(self) -> tuple[list[str], np.ndarray]:
        """The names of the files and the labels, int32 [n]."""
        self._end()
        return self._files, np.array(self._labels, np.int32)

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()  # reports what could not be written
            _sync(self._place / self._files[-1])


def _with_images(classes: tuple[str, ...], parts: dict[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """The classes of which an image could be read, and a line about the others. Renumbers the labels in `parts`."""
    present = np.unique(np.concatenate([labels for _, labels in parts.values()]))
    missing = [name for number, name in enumerate(classes) if number not in present]
    if not missing:
        return classes, []
    for split, (files, labels) in parts.items():
        parts[split] = files, np.searchsorted(present, labels).astype(np.int32)
    names = ", ".join(map(repr, missing))
    return tuple(classes[number] for number in present), [f"left out: {names}, of which no image can be read"]


def _finished(place: Path, parts: dict[str, Any], shape: tuple[int, int, int], keep_labels: bool) -> dict[str, Part]:
    """Writes the labels, and reads all images again for their fingerprint."""
    found = {}
    for split, (files, labels) in parts.items():
        if files:
            with (place / labels_file(split)).open("xb") as file:
                np.save(file, labels if keep_labels else np.zeros_like(labels))
            _sync(place / labels_file(split))
            found[split] = Part(len(labels), fingerprint.of_examples(_All(Shards(place, files, shape)), True), files)
    return {split: part._asdict() for split, part in found.items()}


class _All:
    """The images of shards, as `fingerprint.of_examples` reads them."""

    def __init__(self, shards: Shards):
        self.size, self.read = len(shards), shards.images


def _silent() -> bool:
    return jax.process_index() > 0


def _say(line: str) -> None:
    if not _silent():
        terminal.say(line)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise InputError(
            f"the prepared images cannot be kept in {path} ({error.strerror}): set XDG_CACHE_HOME to a directory you "
            "can write to"
        ) from error


def _name(part: Path, place: Path) -> None:
    """Renames a complete directory. Where another process was faster, for want of locks, its directory stays."""
    try:
        os.rename(part, place)
    except OSError:
        if not (place / FACTS).exists():
            raise


def _remove_parts(place: Path, older_than: float) -> None:
    """Removes the half-made directories that a kill left. older_than: seconds."""
    for part in place.parent.glob(f"{place.name}.*{_PART}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime >= older_than:
                shutil.rmtree(part, ignore_errors=True)


def _sync(file: Path) -> None:
    """Or a crash of the machine may keep the names and lose the content."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
