"""Which run owns a directory: a lock that a kill releases, and a token for file systems without locks."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from sgflow_jax.files import disk, locks
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout

SHARED_SECONDS = 60  # a network file system may take its time to show a new file to other hosts


class Claim(NamedTuple):
    """A run's claim to its directory. token: identifies the run in the lock file."""

    workdir: str
    token: str

    def check(self) -> None:
        """InputError if another run has taken the directory, which can happen on a file system without locks."""
        if (owner := _owner(self.workdir)) not in ("", self.token):
            raise InputError(
                f"another run took over --workdir={self.workdir} (host and process {' '.join(owner.split()[:2])}): "
                "this one saves nothing more; use a --workdir for each run"
            )

    def wait_until_seen(self) -> None:
        """InputError if this process does not see the claim, made by the first process, within SHARED_SECONDS."""
        for _ in range(SHARED_SECONDS):
            if _owner(self.workdir) == self.token:
                return
            time.sleep(1)
        raise InputError(
            f"process {jax.process_index()} does not see what the first one wrote to --workdir={self.workdir}: use a "
            "directory that all hosts share"
        )


@contextlib.contextmanager
def claimed(workdir: str, check: Callable[[], None] = lambda: None) -> Iterator[Claim]:
    """Locks a directory for one run; InputError if another run has it.

    check: called with the directory locked, before the token is written: on a file system without locks a new token
    ends the other run.
    """
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
        yield Claim(workdir, token)


def _owner(workdir: str) -> str:
    """The token of the run that has, or last had, the directory; "" if this process sees none."""
    try:
        return layout.lock_file(workdir).read_text(errors="replace")
    except OSError:
        return ""
