"""A run's directory: where things lie in it, and which configuration it belongs to."""

import contextlib
import fcntl
import glob
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from sgflow_jax.interfaces import InputError

# A run may be continued with other values of these: they change how long it runs, where its data and its arrays lie,
# what it writes and when it gives up, not the path of the parameters (but the cosine schedule ends at num_steps and
# stretches with it).
MAY_CHANGE = (
    "train.num_steps",
    "train.on_divergence",
    "train.max_rollbacks",
    "train.max_abs_loss",
    "train.divergence_factor",
    "data.data_dir",
    "data.num_workers",
    "mesh.data",
    "mesh.fsdp",
    "train.log_every",
    "train.preview_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
    "eval.batch_size",
    "eval.num_samples",
    "eval.features",
)

_PART = ".part"
_FORGOTTEN = 3600  # seconds

# A run may be named without saying these: the value stands for whatever the run has.
UNSAID = {"teacher.step": 0}


def checkpoints(workdir: str) -> Path:
    """Where orbax keeps the checkpoints."""
    return Path(workdir).absolute() / "checkpoints"


def metrics_file(workdir: str) -> Path:
    """One JSON object a logged step."""
    return Path(workdir) / "metrics.jsonl"


def events_file(workdir: str) -> Path:
    """What happened to the run: one JSON object an event."""
    return Path(workdir) / "events.jsonl"


def preview_file(workdir: str, step: int) -> Path:
    """The sample grid of one step."""
    return Path(workdir) / "previews" / f"step_{step:07d}.png"


def evaluation(workdir: str) -> Path:
    """What eval.fid_sweep writes."""
    return Path(workdir) / "eval"


def cache() -> Path:
    """Where the user's downloads and what is costly to compute are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgflow_jax"


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file as `write_atomically` does."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a kill, finds the old content or the new, never a part. InputError if not."""
    # Two processes, of two hosts even, may write one file.
    part = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}{_PART}")
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


def remove_parts(directory: Path, pattern: str = "*", older_than: float = 0) -> None:
    """Removes what writing was killed in the middle of, from a directory. older_than: seconds."""
    for part in directory.glob(pattern + _PART):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime >= older_than:
                part.unlink()


@contextlib.contextmanager
def claimed(workdir: str) -> Iterator[None]:
    """Keeps other runs out of a directory; InputError if one is in it. A kill ends the claim."""
    make_directory(Path(workdir))
    with (Path(workdir) / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"--workdir={workdir} is in use by another run: wait for it, or use another") from error
        except OSError:
            pass  # some network file systems know no locks
        for directory in (Path(workdir), Path(workdir) / "previews"):
            remove_parts(directory)
        yield


def make_directory(path: Path) -> None:
    """Makes a directory and those above it; InputError if it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} is not writable ({error.strerror}): use another --workdir") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"{path} is not writable: use another --workdir")


def record(workdir: str, config: ml_collections.ConfigDict) -> None:
    """Makes the directory and writes down what it is of."""
    write_atomically(_config_file(workdir), json.dumps(config.to_dict(), indent=2) + "\n")


def recorded(workdir: str) -> dict[str, Any] | None:
    """The configuration that was written down, if there is one."""
    file = _config_file(workdir)
    try:
        found = json.loads(file.read_text()) if file.exists() else None
        if not isinstance(found, dict | None):
            raise ValueError("not an object")
        return found
    except ValueError as error:  # damaged JSON, or no text at all
        raise InputError(f"{file} is damaged: remove it, the checkpoints have a copy") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): use another --workdir") from error


def _config_file(workdir: str) -> Path:
    return Path(workdir) / "config.json"


def check_same(workdir: str, saved: dict[str, Any], config: ml_collections.ConfigDict) -> None:
    """InputError that names the fields in which a saved configuration differs from `config`."""
    # Through JSON, so that tuples and lists compare equal.
    ours, theirs = (_flatten(json.loads(json.dumps(tree))) for tree in (config.to_dict(), saved))
    differing = [
        f"{name} (there {theirs.get(name, 'absent')!r}, here {ours.get(name, 'absent')!r})"
        for name in sorted(set(ours) | set(theirs))
        if name not in MAY_CHANGE
        and not (name in UNSAID and ours.get(name) == UNSAID[name])
        and ours.get(name, "absent") != theirs.get(name, "absent")
    ]
    if differing:
        raise InputError(
            f"--workdir={workdir} holds a run of another configuration, which differs in {', '.join(differing)}: "
            "give the same values, or another --workdir"
        )


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
