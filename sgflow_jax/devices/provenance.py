"""Records what produced a run's numbers: code, libraries, machine and command."""

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

import sgflow_jax

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_ROOT = Path(__file__).parents[2]
_GIT_SECONDS = 10  # on a slow network file system


def describe(argv: Sequence[str]) -> dict[str, Any]:
    """JSON-serialisable description of a run. argv: its command line. Never fails: unknown values are None.

    sgflow_jax: the version of this package. commit, dirty: the commit of the code's git checkout, and whether tracked
    files differ from it; an installed copy has neither. code: `fingerprint`.
    started: the UTC time of this call. devices: their number over all processes.
    """
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", __file__) else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "sgflow_jax": sgflow_jax.__version__,
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
    """The versions of Python and of the libraries that affect numbers."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # on the path without being installed
            found[name] = None
    return found


@functools.cache
def fingerprint() -> str:
    """First 16 digits of the SHA-256 of the names and contents of all training and evaluation sources."""
    found = hashlib.sha256()
    for file in sorted(path for package in ("sgflow_jax", "eval") for path in (_ROOT / package).rglob("*.py")):
        content = file.read_bytes()
        found.update(f"{file.relative_to(_ROOT).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    """Output of a git command; None without git or a checkout. Writes nothing, not even git's index."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, env=environment, timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout.decode(errors="replace").strip()
