"""File locks, held by the operating system, so that a kill releases them."""

import contextlib
import fcntl
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sgflow_jax import terminal
from sgflow_jax.interfaces import InputError


def take(file: IO, wait: bool = True) -> bool:
    """Locks a file that is open for writing, until it is closed. Returns whether this worked.

    False, with one warning, on a file system without locks (Lustre as often mounted, NFS without lockd).
    BlockingIOError, unless `wait`, while another process has the lock.
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
def held(path: Path, waiting: str = "") -> Iterator[bool]:
    """Waits for the lock on a file, which is made if needed and kept. Yields whether it is locked, see `take`.

    waiting: a line to print if another process has the lock. InputError if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): use a directory you can write to") from error
    with file:
        try:
            locked = take(file, wait=not waiting)
        except BlockingIOError:
            terminal.say(waiting)
            locked = take(file)
        yield locked


@functools.cache
def _warn(fault: str) -> None:
    """Once for each kind of fault."""
    line = f"warning: this file system has no locks ({fault}): do not start two commands on the same directory"
    terminal.say(line, to_stderr=True)
