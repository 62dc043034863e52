"""Which classes to sample: from the text of --label to the label of every example."""

import difflib
from collections.abc import Sequence

import numpy as np

from sgflow_jax.interfaces import InputError

LISTED = 10  # class names in a message


def chosen(text: str | None, names: Sequence[str]) -> tuple[int, ...]:
    """The labels that `text` asks for, in order and without repeats: a class name, or names and numbers separated by
    commas. None: all.

    The whole text is compared with the names first, as a name may have commas. A part that is a name is never taken for
    a number. InputError for an unknown class, or if there are no classes.
    """
    if text is None:
        return tuple(range(len(names)))
    if not names:
        raise InputError(f"--label={text}: this run was trained without labels (model.num_classes is 0): leave it out")
    parts = [text] if text in names else text.split(",")
    return tuple(dict.fromkeys(_label(part, names) for part in parts))


def in_turn(labels: Sequence[int], count: int) -> np.ndarray | None:
    """The labels of `count` examples, int32: each class in turn. None without classes."""
    if not labels:
        return None
    return np.resize(np.asarray(labels, np.int32), count)


def listed(names: Sequence[str]) -> str:
    """The names in the words of a message: all, or the first and how many more."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _label(part: str, names: Sequence[str]) -> int:
    name = part if part in names else part.strip()
    if name in names:
        return names.index(name)
    if name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < len(names):
        return int(name)
    near = difflib.get_close_matches(name, names, n=1)
    remedy = f"use {near[0]!r}" if near else f"use one of {listed(names)}, or a number from 0 to {len(names) - 1}"
    raise InputError(f"--label has no class {name!r}: {remedy}")
