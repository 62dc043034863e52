"""Where numbers come from: the code, the libraries, the machine and the command."""

import datetime
import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_ROOT = Path(__file__).parent.parent
_GIT_SECONDS = 10  # on a slow network file system


def describe(argv: Sequence[str]) -> dict[str, Any]:
    """What is to be known of a run, as JSON. argv: its command line. Never fails: what cannot be found is None.

    commit, dirty: of the git checkout the code lies in, and whether files that git tracks were changed. code:
    `fingerprint`. started: the time of this call, UTC. devices: of all processes.
    """
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", __file__) else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "code": fingerprint(),
        "versions": versions(),
        "host": socket.gethostname(),
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "command": shlex.join(argv),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str | None]:
    """The version of Python and of each library that numbers depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # put on the path without being installed
            found[name] = None
    return found


@functools.cache
def fingerprint() -> str:
    """SHA-256 of the names and contents of all sources of training and evaluation, as 16 hexadecimal digits."""
    found = hashlib.sha256()
    for file in sorted(path for package in ("sgflow_jax", "eval") for path in (_ROOT / package).rglob("*.py")):
        content = file.read_bytes()
        found.update(f"{file.relative_to(_ROOT).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    """What git says of the checkout; None if there is no git or no checkout. Writes nothing, not even git's index."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, env=environment, timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout.decode(errors="replace").strip()
