"""Writes files whole or not at all; reads JSON and arrays; names the user's cache."""

import contextlib
import functools
import glob
import io
import json
import os
import socket
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from sgflow_jax import terminal
from sgflow_jax.interfaces import InputError

_PART = ".part"


_FORGOTTEN = 3600  # age in seconds at which a half-written file is taken to be left by a kill


def cache() -> Path:
    """Where downloads and expensive results are kept between runs. For a user without a home directory, a temporary
    directory of this process."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgflow_jax"
    except RuntimeError:  # no HOME, and no entry for the user
        return Path(_own_cache().name)


@functools.cache
def _own_cache() -> tempfile.TemporaryDirectory:
    terminal.say("warning: no home directory, so nothing is cached: set XDG_CACHE_HOME to a directory", to_stderr=True)
    return tempfile.TemporaryDirectory(prefix="sgflow_jax-")


def check_writable(*files: Path) -> None:
    """InputError unless each of the files can be written by `write_atomically`. Writes nothing."""
    for file in files:
        try:
            _part(file).exists()  # raises OSError for a name that is too long
            above = next(path for path in file.absolute().parents if path.exists())
            if file.is_dir():
                raise InputError(f"{file} is a directory: use another name")
            if not above.is_dir():
                raise InputError(f"{above} is a file: give a directory")
            if not os.access(above, os.W_OK | os.X_OK):
                raise InputError(f"{above} is not writable: use another directory")
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error.strerror}): use another name") from error


def from_json(text: str | bytes) -> Any:
    """Parses JSON. json.JSONDecodeError for bad text, also for one nested too deep to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deep", "", 0) from error


def read_json_lines(path: Path) -> list[tuple[str, Any]]:
    """Each line of a file and its value, None if it is not JSON, such as a line that a kill cut short. Empty if there
    is no file. InputError if it cannot be read."""

    def value(line: str) -> Any:
        try:
            return from_json(line)
        except json.JSONDecodeError:
            return None

    try:
        lines = path.read_text().splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}): remove it") from error
    return [(line, value(line)) for line in lines]


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Reads these arrays from an .npz file. InputError if it, or one of them, is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except Exception as error:  # np.load raises any kind, by which byte is damaged
        raise InputError(f"{path} is damaged: remove it") from error


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each array in an .npz file, by its name; reads no array. InputError if it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _shape(archive, name) for name in archive.namelist()}
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: give the path of a file") from error
    except Exception as error:  # zipfile raises any kind, by which byte is damaged
        raise InputError(f"{path} is damaged, or no .npz file: get it again") from error


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    with archive.open(name) as member:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(member)]
        return read(member)[0]


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file with `write_atomically`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: readers, also after a kill, find the old content or the new. InputError if it
    cannot be written."""
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(path.parent, glob.escape(path.name) + ".*", older_than=_FORGOTTEN)
        part.unlink(missing_ok=True)
        with part.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # or a crash of the machine may keep the new name and lose the content
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written ({error.strerror}): use a place you can write to") from error


def write_many(files: Iterable[tuple[Path, bytes]]) -> None:
    """Writes many small files, each whole or not at all unless the machine itself crashes: waiting for the disk after
    every file, as `write_atomically` does, would take longer than all the rest. InputError as there."""
    for path, content in files:
        part = _part(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            os.replace(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise InputError(
                f"{path} cannot be written ({error.strerror}): use a place you can write to, and remove the files "
                "written before it"
            ) from error


def _part(path: Path) -> Path:
    """The temporary path of a file while it is written; another for each process and host, as two may write one."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}{_PART}")


def remove_parts(directory: Path, pattern: str = "*", older_than: float = 0) -> None:
    """Removes the half-written files that a kill left in a directory. older_than: seconds."""
    for part in directory.glob(pattern + _PART):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime >= older_than:
                part.unlink()


def make_directory(path: Path) -> None:
    """Makes a directory and those above it; InputError if it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} is not writable ({error.strerror}): use another --workdir") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"{path} is not writable: use another --workdir")
