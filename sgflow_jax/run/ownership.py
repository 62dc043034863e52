"""Which run has a directory: a lock that a kill ends, and a token for file systems without locks."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sgflow_jax.files import disk, locks
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout


@contextlib.contextmanager
def claimed(workdir: str, check: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Keeps other runs out of a directory; InputError if one is in it. A kill ends the claim. Gives what `claim` reads
    while this run has it. check: called with the directory locked, before this run says that it has it: on a file
    system without locks that ends another."""
    disk.make_directory(Path(workdir))
    token = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
    lock = layout.lock_file(workdir)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(lock.open("a"))
            locks.take(file, wait=False)
            check()
            for directory in (Path(workdir), Path(workdir) / "previews"):
                disk.remove_parts(directory)
            file.truncate(0)
            file.write(token)
            file.flush()
        except BlockingIOError as error:
            raise InputError(f"--workdir={workdir} is in use by another run: wait for it, or use another") from error
        except OSError as error:
            raise InputError(
                f"{lock} cannot be written ({error.strerror}), is it another user's? use another --workdir"
            ) from error
        yield token


def claim(workdir: str) -> str:
    """The token of the run that has, or last had, the directory; "" if this process sees none."""
    try:
        return layout.lock_file(workdir).read_text(errors="replace")
    except OSError:
        return ""


def check_claim(workdir: str, token: str) -> None:
    """InputError if another run has taken the directory since `claimed` gave this token, as it can on a file system
    without locks."""
    if (owner := claim(workdir)) not in ("", token):
        raise InputError(
            f"another run took --workdir={workdir} over (host and process {' '.join(owner.split()[:2])}): this one "
            "saves nothing more; use a --workdir for each run"
        )
