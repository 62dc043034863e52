"""A run's directory: where things lie in it, and which configuration it belongs to."""

import contextlib
import functools
import glob
import io
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from sgflow_jax import locks, places, terminal
from sgflow_jax.interfaces import InputError

# A run may be continued with other values of these: they change how long it runs, where its data and its arrays lie,
# what it writes and when it gives up or goes back, not the path of the parameters until then (but the cosine schedule
# ends at num_steps and stretches with it). Not keep_every: what is to be kept for good would then be removed.
MAY_CHANGE = (
    "train.num_steps",
    "train.microbatches",
    "train.on_divergence",
    "train.max_rollbacks",
    "train.max_abs_loss",
    "train.divergence_factor",
    "data.data_dir",
    "data.num_workers",
    "model.remat",
    "objective.tangents",
    "mesh.data",
    "mesh.fsdp",
    "train.log_every",
    "train.preview_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "profile.steps",
    "eval.batch_size",
    "eval.num_samples",
    "eval.features",
    "eval.every",
    "eval.steps",
    "eval.train_samples",
)

# These may name another place, to which it was moved, but not none, nor one where there was none.
MAY_MOVE = ("teacher.workdir",)

# A run may be named without these, or with less of them: whether what is given stands for what the run has.
UNSAID = {
    "teacher.step": lambda given, has: given == 0,
    "teacher.network": lambda given, has: not given,
    "train.keep_every": lambda given, has: given == -1 or (has > 0 and given > 0 and given % has == 0),
    "train.fork_from": lambda given, has: not given or has.startswith(f"{given}@"),
}

_PART = ".part"
_FORGOTTEN = 3600  # seconds


def checkpoints(workdir: str) -> Path:
    """Where orbax keeps the checkpoints."""
    return Path(workdir).absolute() / "checkpoints"


def metrics_file(workdir: str) -> Path:
    """One JSON object a logged step."""
    return Path(workdir) / "metrics.jsonl"


def events_file(workdir: str) -> Path:
    """What happened to the run: one JSON object an event."""
    return Path(workdir) / "events.jsonl"


def tensorboard(workdir: str) -> Path:
    """What TensorBoard shows: numbers, pictures and traces."""
    return Path(workdir) / "tensorboard"


def parameters_file(workdir: str) -> Path:
    """The table of the network's parameters."""
    return Path(workdir) / "parameters.txt"


def preview_file(workdir: str, step: int) -> Path:
    """The sample grid of one step."""
    return Path(workdir) / "previews" / f"step_{step:07d}.png"


def evaluation(workdir: str) -> Path:
    """What eval.fid_sweep writes."""
    return Path(workdir) / "eval"


def cache() -> Path:
    """Where the user's downloads and what is costly to compute are kept between runs; by this process alone for a user
    without a home directory."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgflow_jax"
    except RuntimeError:  # no HOME, and no entry for the user
        return Path(_own_cache().name)


@functools.cache
def _own_cache() -> tempfile.TemporaryDirectory:
    terminal.say("warning: no home directory, so nothing is cached: XDG_CACHE_HOME may name a place", to_stderr=True)
    return tempfile.TemporaryDirectory(prefix="sgflow_jax-")


def check_places(workdir: str) -> None:
    """InputError for a directory that cannot be a run's, and if something else is where training writes a file or a
    directory."""
    places.check_run("--workdir", workdir)
    files = metrics_file(workdir), events_file(workdir), _lock_file(workdir)
    directories = tensorboard(workdir), preview_file(workdir, 0).parent
    for path in (*files, *directories):
        kind, right = ("file", path.is_file()) if path in files else ("directory", path.is_dir())
        if path.exists() and not right:
            raise InputError(f"{path} is not a {kind}: remove it, or use another --workdir")


def check_writable(*files: Path) -> None:
    """InputError unless each of the files can be written by `write_atomically`. Writes nothing."""
    for file in files:
        try:
            _part(file).exists()  # raises OSError for a name that is too long
            above = next(path for path in file.absolute().parents if path.exists())
            if file.is_dir():
                raise InputError(f"{file} is a directory: use another name")
            if not above.is_dir():
                raise InputError(f"{above} is a file: give a directory")
            if not os.access(above, os.W_OK | os.X_OK):
                raise InputError(f"{above} is not writable: use another directory")
        except OSError as error:
            raise InputError(f"{file} cannot be written ({error.strerror}): use another name") from error


def from_json(text: str | bytes) -> Any:
    """What a JSON text says; json.JSONDecodeError also for one that is nested too deep to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deep", "", 0) from error


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """These arrays of an .npz file. InputError if it, or one of them, is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except Exception as error:  # what np.load raises depends on which byte is damaged
        raise InputError(f"{path} is damaged: remove it") from error


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file as `write_atomically` does."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a kill, finds the old content or the new, never a part. InputError if not."""
    part = _part(path)
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


def _part(path: Path) -> Path:
    """Where a file is while it is written: two processes, of two hosts even, may write one."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}{_PART}")


def remove_parts(directory: Path, pattern: str = "*", older_than: float = 0) -> None:
    """Removes what writing was killed in the middle of, from a directory. older_than: seconds."""
    for part in directory.glob(pattern + _PART):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime >= older_than:
                part.unlink()


@contextlib.contextmanager
def claimed(workdir: str, check: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Keeps other runs out of a directory; InputError if one is in it. A kill ends the claim. Gives what `claim` reads
    while this run has it. check: called with the directory locked, before this run says that it has it: on a file
    system without locks that ends another."""
    make_directory(Path(workdir))
    token = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
    lock = _lock_file(workdir)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(lock.open("a"))
            locks.take(file, wait=False)
            check()
            for directory in (Path(workdir), Path(workdir) / "previews"):
                remove_parts(directory)
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
        return _lock_file(workdir).read_text(errors="replace")
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
        if not file.exists():
            return None
        if not isinstance(found := from_json(file.read_text()), dict):
            raise ValueError("not an object")
        return found
    except ValueError as error:  # damaged JSON, or no text at all
        raise InputError(f"{file} is damaged: remove it and give --config, the checkpoints have a copy") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): use another --workdir") from error


def _config_file(workdir: str) -> Path:
    return Path(workdir) / "config.json"


def _lock_file(workdir: str) -> Path:
    return Path(workdir) / "lock"


def check_same(workdir: str, saved: dict[str, Any], config: ml_collections.ConfigDict) -> None:
    """InputError that names the fields in which a saved configuration differs from `config`."""
    # Through JSON, so that tuples and lists compare equal.
    ours, theirs = (flatten(json.loads(json.dumps(tree))) for tree in (config.to_dict(), saved))
    differing = [
        f"{name} (there {theirs.get(name, 'absent')!r}, here {ours.get(name, 'absent')!r})"
        for name in sorted(set(ours) | set(theirs))
        if name not in MAY_CHANGE
        and not (name in UNSAID and name in theirs and UNSAID[name](ours.get(name), theirs[name]))
        and not (name in MAY_MOVE and ours.get(name) and theirs.get(name))
        and ours.get(name, "absent") != theirs.get(name, "absent")
    ]
    if differing:
        raise InputError(
            f"--workdir={workdir} holds a run of another configuration, which differs in {', '.join(differing)}: "
            "give the same values, or another --workdir"
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": c}} as {"a.b": c}."""
    flat = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
