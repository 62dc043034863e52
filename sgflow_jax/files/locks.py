"""Locks on files, kept by the operating system, so that a kill ends them."""

import contextlib
import fcntl
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sgflow_jax import terminal
from sgflow_jax.interfaces import InputError


def take(file: IO, wait: bool = True) -> bool:
    """Locks an open file, which must be open for writing, until it is closed; whether this worked.

    False, with one warning, on a file system that knows no locks (Lustre as it is often mounted, NFS without lockd).
    BlockingIOError, unless `wait`, while another has the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        _warn(error.strerror)
        return False
    return True


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Waits for the lock on a file, which is made if it is not there and stays. InputError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): use a directory you can write to") from error
    with file:
        take(file)
        yield


@functools.cache
def _warn(fault: str) -> None:
    """Once for each kind of fault."""
    line = f"warning: this file system locks no files ({fault}): start nothing twice on the same directory"
    terminal.say(line, to_stderr=True)
