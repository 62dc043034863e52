"""Image files in a folder, or in a .zip of one. Sub-directories are classes."""

import dataclasses
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image, ImageOps

from sgflow_jax.data.origin import Loaded, Origin
from sgflow_jax.interfaces import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")  # what the content may be, whatever the name says
MOST_BYTES = 2**30  # of one file: more is no image, and a member of an archive could fill the memory


class File(NamedTuple):
    """path: relative, with slashes. version: changes with the content: the time of the last change in ns for a file, a
    checksum for a member of an archive."""

    path: str
    size: int
    version: int


class Listing(NamedTuple):
    """files: images, sorted by path. others: number of files of other kinds. loops: links to directories above them.
    directories: those of the first level, sorted."""

    files: list[File]
    others: int
    loops: list[str]
    directories: list[str]


def origin(folder: Path) -> Origin:
    """Image files below a folder. InputError if it cannot be listed."""
    try:
        found = _listed(folder)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be listed ({error.strerror}): make it readable") from error

    def content(file: File) -> bytes:
        return (folder / file.path).read_bytes()

    return Origin(f"the folder {folder}", found, lambda: _opened(f"the folder {folder}", found, content), False)


def archive(file: Path) -> Origin:
    """As `origin`, for a .zip of a folder. InputError if it is damaged."""
    try:
        opened = zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} cannot be read ({error}): make it again, with zip") from error
    members = {info.filename: info for info in opened.infolist() if not info.is_dir() and _shown(info.filename)}
    images = sorted(name for name in members if _is_image(name))
    top = _top(list(members))
    files = [File(name.removeprefix(top), members[name].file_size, members[name].CRC) for name in images]
    directories = {info.filename.removeprefix(top).partition("/")[0] for info in opened.infolist() if info.is_dir()}
    directories |= {file.path.partition("/")[0] for file in files if "/" in file.path}
    shown = sorted(name for name in directories if name and _shown(name))
    found = Listing(files, len(members) - len(images), [], shown)

    def content(file: File) -> bytes:
        return opened.read(members[top + file.path])

    return Origin(str(file), found, lambda: _opened(str(file), found, content), False)


@dataclasses.dataclass(frozen=True)
class _Files:
    """See `origin.Opened`. numbers: the label of each class by its directory; {} without classes."""

    files: list[File]
    numbers: dict[str, int]
    notes: list[str]
    content: Callable[[File], bytes]

    @property
    def size(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.numbers)

    def name(self, index: int) -> str:
        return self.files[index].path

    def load(self, index: int) -> Loaded:
        file = self.files[index]
        if file.size > MOST_BYTES:
            raise ValueError(f"{file.size:,} bytes")
        content = self.content(file)
        label = self.numbers.get(file.path.partition("/")[0], 0)
        return Loaded(decoded(content), label, hashlib.sha256(content).digest())


def decoded(content: bytes) -> Image.Image:
    """The first frame of an image file, turned as its EXIF orientation says."""
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raise any kind, and the pixels are whole
        return image


def _opened(title: str, found: Listing, content: Callable[[File], bytes]) -> _Files:
    if not found.files:
        raise InputError(f"{title} has no images: put PNG, JPEG or WebP files there, or in a directory for each class")
    inside = [file.path for file in found.files if "/" in file.path]
    beside = [file.path for file in found.files if "/" not in file.path]
    if inside and beside:
        raise InputError(
            f"{title} has images both beside and inside its sub-directories ({beside[0]} and {inside[0]}): move all "
            "into sub-directories, one for each class, or all out"
        )
    names = sorted({path.partition("/")[0] for path in inside})
    notes = []
    if empty := sorted(set(found.directories) - set(names)):
        notes.append(f"left out: {_some(empty)}, without images")
    if found.others:
        notes.append(f"left out: files that are no PNG, JPEG or WebP by their names, {found.others:,}")
    if found.loops:
        notes.append(f"left out: {_some(found.loops)}, a link to a directory above it")
    return _Files(found.files, {name: number for number, name in enumerate(names)}, notes, content)


def _some(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _listed(folder: Path) -> Listing:
    files, others, loops, directories = [], 0, [], []
    for path, entry in _walk(folder, "", (os.path.realpath(folder),)):
        if entry is None:
            loops.append(path)
        elif _is_directory(entry):
            if "/" not in path:
                directories.append(path)
        elif _is_image(path):
            files.append(_file(path, entry))
        else:
            others += 1
    return Listing(sorted(files), others, sorted(loops), sorted(directories))


def _walk(folder: Path, above: str, chain: tuple[str, ...]) -> Iterator[tuple[str, os.DirEntry | None]]:
    """Every entry below a folder, with its relative path; None in place of a link to one of the directories `chain`
    above it."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if _shown(entry.name)]
    for entry in found:
        path = above + entry.name
        if not _is_directory(entry):
            yield path, entry
        elif (real := os.path.realpath(entry.path)) in chain:
            yield path, None
        else:
            yield path, entry
            yield from _walk(Path(entry.path), f"{path}/", (*chain, real))


def _file(path: str, entry: os.DirEntry) -> File:
    try:
        found = entry.stat()
    except OSError:  # a link to nothing: reading it names the fault
        return File(path, 0, 0)
    return File(path, found.st_size, found.st_mtime_ns)


def _is_directory(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def _shown(path: str) -> bool:
    """Whether no part of a path begins with a dot, or is what macOS adds to archives."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _top(paths: list[str]) -> str:
    """The single directory that contains everything, as a prefix; "" if there is none."""
    tops = {path.partition("/")[0] if "/" in path else "" for path in paths}
    return f"{tops.pop()}/" if len(tops) == 1 and "" not in tops else ""
