"""Reads checkpoints and verifies them.

Orbax commits a step by renaming its directory, so a kill leaves only complete steps. It does not notice files that were
cut or changed later, or a directory that is not a checkpoint. Here a step is sound if what is asked of it can be read
and has the checksum that was saved with it.
"""

import collections
import contextlib
import functools
import gc
import hashlib
import json
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from sgflow_jax import optim, terminal
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout

ARRAYS = ("state", "monitor")  # and, in JSON, "config" and "facts"
PARTS = {"ema": "average", "raw": "params"}  # of the state, by --parameters; the rest are in more_averages
# To be raised by every change that makes older checkpoints read wrongly or train differently.
FORMAT = 2


class Saved(NamedTuple):
    """A checkpoint of a run: its step, the resolved configuration, and `data.Source.identity`. Step 0 is a run without
    checkpoints, which may have recorded a configuration."""

    step: int = 0
    config: dict[str, Any] | None = None
    data: dict[str, Any] | None = None


class Network(NamedTuple):
    """The parameters in a checkpoint, or an average of them, as host arrays."""

    saved: Saved
    params: Any


def newest(workdir: str, quiet: bool = False, read: Callable | None = None) -> Any:
    """The newest sound checkpoint, as `read` gives it (`examine` by default); None if the run has no checkpoint.

    Runs on this process alone. Damaged newer ones are reported on stderr, unless `quiet`. InputError if all are
    damaged, or one was written by another version.
    """
    directory, damaged = layout.checkpoints(workdir), []
    for step in reversed(step_numbers(directory)):
        found = (read or examine)(directory, step)
        if not isinstance(found, str):
            for line in [] if quiet else damaged:
                terminal.say(f"warning: the checkpoint {line}", to_stderr=True)
            return found
        if (directory / str(step)).exists():  # else the run that is writing has just removed it
            damaged.append(f"{directory / str(step)} is damaged: {found}")
    if damaged:
        raise InputError(f"{workdir} has no readable checkpoint ({damaged[0]}): restore one, or use another --workdir")
    return None


def find(workdir: str, step: int | None = None, read: Callable | None = None) -> Any:
    """As `newest`, or the checkpoint of `step`. InputError if it does not exist or is damaged."""
    if step is None:
        if (found := newest(workdir, read=read)) is None:
            raise InputError(f"{workdir} has no checkpoint: train first, or name the directory of a run")
        return found
    directory = layout.checkpoints(workdir)
    if step not in (known := step_numbers(directory)):
        had = f"it has {', '.join(map(str, known))}" if known else "it has none"
        raise InputError(f"{workdir} has no checkpoint of step {step}: {had}")
    if isinstance(found := (read or examine)(directory, step), str):
        raise InputError(f"the checkpoint {directory / str(step)} is damaged ({found}): use another step")
    return found


def step_numbers(directory: Path) -> list[int]:
    """The steps that have a directory, in order, whatever is in it. InputError if it cannot be listed."""
    try:
        names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    except OSError as error:
        raise InputError(f"{directory} cannot be read ({error.strerror}): ask its owner, or use another run") from error
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name == str(int(name)))


class _Manager(ocp.CheckpointManager):
    """Asking here too would move the step at which JAX makes all processes stop: only `Preemption` asks."""

    def reached_preemption(self, step: int) -> bool:
        return False


def manager(directory: Path, multiprocessing_options=None, **options) -> ocp.CheckpointManager:
    """Orbax's manager for the four items of a checkpoint."""
    several = multiprocessing_options or ocp.options.MultiprocessingOptions()
    handlers = {name: ocp.StandardCheckpointHandler(multiprocessing_options=several) for name in ARRAYS}
    handlers |= {name: ocp.JsonCheckpointHandler(multiprocessing_options=several) for name in ("config", "facts")}
    options = ocp.CheckpointManagerOptions(multiprocessing_options=several, **options)
    return _Manager(directory, options=options, item_handlers=handlers)


# Sound checkpoints by the names, times and sizes of their files. Faults are not kept: they may pass.
_sound: dict[tuple, Saved] = {}


def examine(directory: Path, step: int) -> Saved | str:
    """Reads and verifies all of a step on this process alone; the fault if it is damaged. InputError if another version
    of this code wrote it, as it may be sound."""

    def read() -> Saved:
        files = sorted(path for path in (directory / str(step)).rglob("*") if path.is_file())
        key = directory, step, *((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files)
        if key not in _sound:
            _sound[key] = _read(directory, step)[0]
        return _sound[key]

    return _or_fault(read)


def network(directory: Path, step: int, parameters: str = "ema") -> Network | str:
    """As `examine`, for the parameters or one average of them. All further averages are read for one of them, and of a
    checkpoint without checksums for each part, everything. InputError also for parameters that it does not have."""
    part = PARTS.get(parameters, "more_averages")

    def read() -> Network:
        if parameters not in PARTS:
            _check_average(directory / str(step), parameters)
        saved, arrays = _read(directory, step, part)
        found = arrays["state"][part]
        return Network(saved, found if parameters in PARTS else found[parameters])

    return _or_fault(read)


def _check_average(place: Path, name: str) -> None:
    """InputError unless the checkpoint has this further average."""
    names = optim.average_names(_json(place / "config")["optim"].get("more_ema_decays", ()))
    if name not in names:
        raise InputError(f"{place} has no parameters {name!r}: use one of {', '.join([*PARTS, *names])}")


def _or_fault(read: Callable) -> Any:
    try:
        return read()
    except InputError:
        raise
    except Exception as error:  # orbax raises any kind, Exception itself among them
        return f"{type(error).__name__}, {' '.join(str(error).split())[:120]}"


def check_store(workdir: str) -> None:
    """InputError unless a checkpoint written to the workdir can be read back. Runs on this process alone."""
    directory = layout.checkpoints(workdir) / "probe"
    tree, text = {"numbers": np.arange(4, dtype=np.float32)}, {"text": "ä"}
    try:
        shutil.rmtree(directory, ignore_errors=True)  # of a kill in the middle of this
        directory.mkdir(parents=True, exist_ok=True)
        with _alone(directory) as opened:
            item = ocp.args.Composite(state=ocp.args.StandardSave(tree), config=ocp.args.JsonSave(text))
            opened.save(0, args=item)
            item = ocp.args.Composite(state=ocp.args.StandardRestore(tree), config=ocp.args.JsonRestore())
            found = opened.restore(0, args=item)
        if found["config"] != text or not np.array_equal(found["state"]["numbers"], tree["numbers"]):
            raise ValueError("other values came back")
    except Exception as error:  # as in `_or_fault`
        said = f"{type(error).__name__}, {' '.join(str(error).split())[:120]}"
        raise InputError(
            f"--workdir={workdir} cannot keep checkpoints: one was written and could not be read ({said}); use another "
            "directory"
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[ocp.CheckpointManager]:
    """A manager that waits for no other process."""
    options = dict(create=False, save_root_metadata=False, enable_async_checkpointing=False)
    with manager(directory, **options, multiprocessing_options=_by_itself()) as opened:
        yield opened


def _by_itself() -> ocp.options.MultiprocessingOptions:
    """Has orbax wait for no other process."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(me, {me}, barrier_sync_key_prefix="alone")


def _check_format(place: Path, facts: dict[str, Any]) -> None:
    if (found := facts.get("format", 1)) != FORMAT:
        age = "an older" if found < FORMAT else "a newer"
        raise InputError(
            f"{place} was written by {age} version of sgflow_jax (format {found}, this one reads {FORMAT}): use that "
            "version, or another run"
        )


def _read(directory: Path, step: int, part: str = "") -> tuple[Saved, dict[str, Any]]:
    """A checkpoint and its arrays, of the state only `part` if that has a checksum of its own."""
    place = directory / str(step)
    if {path.name for path in place.iterdir() if path.is_dir()} == {"config", "state"}:
        _check_format(place, {})  # the first versions wrote no facts
    with _quietly():
        config, facts = (_json(place / item) for item in ("config", "facts"))
        _check_format(place, facts)
        name = f"state.{part}"
        if name in facts.get("sums", {}):
            arrays, right = {"state": _arrays(place / "state", part)}, facts["sums"][name]
        else:
            arrays, right = {item: _arrays(place / item) for item in ARRAYS}, facts["sum"]
    if bit_sum(arrays) != right:
        raise ValueError("its numbers do not have the checksum that was saved")
    saved = Saved(step, config, facts["data"])
    if digest(saved.config, saved.data) != facts["digest"]:
        raise ValueError("its configuration does not have the checksum that was saved")
    return saved, arrays


def _json(place: Path) -> Any:
    return ocp.JsonCheckpointHandler(multiprocessing_options=_by_itself()).restore(place, args=ocp.args.JsonRestore())


def _arrays(place: Path, part: str = "") -> Any:
    """One item of a checkpoint, or a part of it, as numpy arrays."""
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_by_itself())
    saved = handler.metadata(place)
    like = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), {part: saved[part]} if part else saved)
    how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    return handler.restore(place, args=ocp.args.PyTreeRestore(like, restore_args=how, partial_restore=True))


@contextlib.contextmanager
def _quietly():
    """Without the pages that orbax's unfinished reads print when they are thrown away."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


def digest(*values: Any) -> str:
    """SHA-256 of JSON-serialisable values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sum_on_host(array, numpy=np) -> Any:
    """Order-dependent checksum of a 32-bit array, of numpy or jax.numpy: the bits of every element as uint32, each
    weighted by an odd number from its position, summed mod 2^32. Independent of sharding; changes if any single bit
    changes."""
    bits = numpy.asarray(array).view(numpy.uint32)
    place = numpy.zeros(bits.shape, numpy.uint32)
    with np.errstate(over="ignore"):
        for axis, size in enumerate(bits.shape):
            along = numpy.arange(size, dtype=numpy.uint32).reshape([-1 if i == axis else 1 for i in range(bits.ndim)])
            place = place * numpy.uint32(size) + along
        return numpy.sum(bits * (2 * place + 1), dtype=numpy.uint32)


# One program for each shape: one for all arrays takes XLA half a minute for a large network.
sum_on_devices = jax.jit(functools.partial(sum_on_host, numpy=jnp))


def bit_sum(tree, of_array: Callable = sum_on_host) -> int:
    """Checksum of all arrays of a tree: the sum of its `bit_sums`."""
    return sum(bit_sums(tree, of_array).values()) % 2**32


def bit_sums(tree, of_array: Callable = sum_on_host) -> dict[str, int]:
    """A checksum for each part of a tree, by its first two keys: "state.average", ... Each array's checksum is weighted
    by an odd number from its name."""
    sums = collections.defaultdict(int)
    # One after the other: of a sharded array it is a collective, and several at once may wait for each other.
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        part = jax.tree_util.keystr(path[:2], simple=True, separator=".")
        weight = 2 * zlib.crc32(jax.tree_util.keystr(path, simple=True).encode()) + 1
        sums[part] = (sums[part] + int(of_array(leaf)) * weight) % 2**32
    return dict(sums)
