"""Images of the user's own: a folder, an archive, a file of arrays, or any prepared data set of TFDS."""

import functools
from pathlib import Path

import jax

from sgflow_jax import terminal
from sgflow_jax.data import arrays, folder, prepared, preparing
from sgflow_jax.data.decoding import Wanted
from sgflow_jax.data.memory import Images
from sgflow_jax.data.origin import Origin
from sgflow_jax.data.records import Records
from sgflow_jax.data.shards import Collection
from sgflow_jax.data.source import Request, Source
from sgflow_jax.interfaces import InputError

IN_MEMORY = 2**30  # bytes of all pixels of a split up to which it is kept in memory
TFDS = "tfds:"


def read(request: Request) -> Source:
    """Opens a split, and prepares the images if that was not done before. InputError if there are none, some are
    damaged and request.skip_damaged is off, or the split is empty."""
    found = _collection(request)
    if request.split not in found.parts:
        raise InputError(
            f"data.test_share is {request.test_share}, which leaves no image for the split {request.split} of "
            f"{found.title}: use another share"
        )
    part = found.parts[request.split]
    about = dict(
        labels=found.labels(request.split),
        flip=request.flip,
        name=request.name,
        split=request.split,
        classes=found.classes,
        known_fingerprint=part.fingerprint,
    )
    images = found.images(request.split)
    height, width, channels = found.shape
    if part.size * height * width * channels <= IN_MEMORY:
        return Images(images.all(), **about)
    return Records(images, **about, num_workers=request.num_workers)


def classes(request: Request) -> tuple[str, ...]:
    """The names of the labels; () without labels. As `read`, prepares the images."""
    return _collection(request).classes


def splits(request: Request) -> tuple[str, ...]:
    """Those of the images: "test" where a share is held out, or TFDS has such a split or one for validation."""
    if request.name.startswith(TFDS):
        return tuple(_collection(request).parts)
    return ("train", "test") if request.test_share else ("train",)


def _collection(request: Request) -> Collection:
    # Without what does not change the images, so that they are looked at once.
    return _opened(request._replace(split="train", flip=False, num_workers=0))


@functools.lru_cache(maxsize=8)
def _opened(request: Request) -> Collection:
    found = preparing.collection(_origin(request), Wanted(request.size, request.channels or 3, request.test_share))
    lines = list(found.notes)
    if found.damaged:
        (name, fault), more = found.damaged[0], len(found.damaged) - 1
        others = f", and {more:,} more cannot" if more else ""
        if not request.skip_damaged:
            raise InputError(
                f"{name} in {found.title} cannot be read ({fault}){others}: repair or remove what is damaged, or set "
                "--config.data.skip_damaged=true"
            )
        lines.append(f"left out: {name} ({fault})" + f" and {more:,} more damaged images" * bool(more))
    if not jax.process_index():
        for line in lines:
            terminal.say(line)
    return found


def _origin(request: Request) -> Origin:
    if request.name.startswith(TFDS):
        return prepared.origin(request.name.removeprefix(TFDS), request.data_dir)
    if not request.dir:
        raise InputError("config.data.dir is '': give the folder, .npz or .zip of the images")
    return origin("config.data.dir", request.dir)


def origin(what: str, text: str) -> Origin:
    """The images of a folder, .npz or .zip. what: the field or flag with its path, `text`. InputError for another file,
    or none."""
    place = Path(text)
    if place.is_dir():
        return folder.origin(place)
    if not place.exists():
        raise InputError(f"{what} is {text!r}, which does not exist: give the place of the images")
    kinds = {".npz": arrays.origin, ".zip": folder.archive}
    if place.suffix.lower() not in kinds:
        raise InputError(f"{what} is {text!r}, a file of another kind: give a folder, .npz or .zip")
    return kinds[place.suffix.lower()](place)
