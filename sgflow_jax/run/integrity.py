"""Which checkpoints can be trusted.

Orbax commits a step by renaming its directory, so that a kill leaves whole steps only. What it does not notice (files
cut or changed later, a directory that is no checkpoint) is noticed here: a step is sound only if all of it can be read
and its numbers have the sum that was saved with them.
"""

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

from sgflow_jax import terminal
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout

ARRAYS = ("state", "monitor")  # and, in JSON, "config" and "facts"
# Raised with every change after which a checkpoint of before is read wrongly or trains on otherwise.
FORMAT = 2


class Saved(NamedTuple):
    """What a sound checkpoint says of its run. config: the resolved configuration. data: `data.Source.identity`."""

    step: int
    config: dict[str, Any]
    data: dict[str, Any]


def newest(workdir: str, quiet: bool = False) -> Saved | None:
    """The newest sound checkpoint of a run, read by this process alone; None if there is none at all. Newer ones that
    are damaged are named on stderr, unless `quiet`. InputError if there are only damaged ones, or one of another
    version."""
    directory = layout.checkpoints(workdir)
    damaged = []
    for step in reversed(steps(directory)):
        examined = examine(directory, step)
        if isinstance(examined, Saved):
            for line in [] if quiet else damaged:
                terminal.say(f"warning: the checkpoint {line}", to_stderr=True)
            return examined
        if (directory / str(step)).exists():  # or the run that is writing has just removed it
            damaged.append(f"{directory / str(step)} is damaged: {examined}")
    if damaged:
        raise InputError(
            f"{workdir} has no checkpoint that can be read ({damaged[0]}): restore one, or use another --workdir"
        )
    return None


def steps(directory: Path) -> list[int]:
    """The steps that have a directory, in order, whatever is in it. InputError if that cannot be told."""
    try:
        names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    except OSError as error:
        raise InputError(f"{directory} cannot be read ({error.strerror}): ask its owner, or use another run") from error
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name == str(int(name)))


class _Manager(ocp.CheckpointManager):
    """Orbax's own question would move the step at which JAX has all processes stop: `Preemption` asks it."""

    def reached_preemption(self, step: int) -> bool:
        return False


def manager(directory: Path, multiprocessing_options=None, **options) -> ocp.CheckpointManager:
    """Over the four items of a checkpoint."""
    several = multiprocessing_options or ocp.options.MultiprocessingOptions()
    handlers = {name: ocp.StandardCheckpointHandler(multiprocessing_options=several) for name in ARRAYS}
    handlers |= {name: ocp.JsonCheckpointHandler(multiprocessing_options=several) for name in ("config", "facts")}
    options = ocp.CheckpointManagerOptions(multiprocessing_options=several, **options)
    return _Manager(directory, options=options, item_handlers=handlers)


# What was found sound, with the names, times and sizes of its files; a fault may pass, as a network may.
_sound: dict[tuple, Saved] = {}


def examine(directory: Path, step: int) -> Saved | str:
    """A step, all of which is read by this process alone; or what is wrong with it. InputError for one that another
    version of this code wrote, which may be sound."""
    try:
        files = sorted(path for path in (directory / str(step)).rglob("*") if path.is_file())
        key = directory, step, *((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files)
        if key not in _sound:
            _sound[key] = _read(directory, step)
        return _sound[key]
    except InputError:
        raise
    except Exception as error:  # orbax raises any kind, Exception itself among them
        return f"{type(error).__name__}, {' '.join(str(error).split())[:120]}"


def check_store(workdir: str) -> None:
    """InputError unless what is written where checkpoints go can be read there. By this process alone."""
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
    except Exception as error:  # as in `examine`
        said = f"{type(error).__name__}, {' '.join(str(error).split())[:120]}"
        raise InputError(
            f"--workdir={workdir} cannot keep checkpoints, one was written and could not be read ({said}): use another "
            "directory"
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[ocp.CheckpointManager]:
    """A manager that waits for no other process."""
    several = None
    if jax.process_count() > 1:
        me = jax.process_index()
        several = ocp.options.MultiprocessingOptions(me, {me}, barrier_sync_key_prefix="alone")
    options = dict(create=False, save_root_metadata=False, enable_async_checkpointing=False)
    with manager(directory, **options, multiprocessing_options=several) as opened:
        yield opened


def _check_format(place: Path, facts: dict[str, Any]) -> None:
    if (found := facts.get("format", 1)) != FORMAT:
        age = "an older" if found < FORMAT else "a newer"
        raise InputError(
            f"{place} was written by {age} version of sgflow_jax (format {found}, this one reads {FORMAT}): use that "
            "version, or another run"
        )


def _read(directory: Path, step: int) -> Saved:
    place = directory / str(step)
    if {path.name for path in place.iterdir() if path.is_dir()} == {"config", "state"}:
        _check_format(place, {})  # the first versions wrote no more
    with _quietly(), _alone(directory) as opened:
        said = opened.restore(
            step, args=ocp.args.Composite(config=ocp.args.JsonRestore(), facts=ocp.args.JsonRestore())
        )
        _check_format(place, said["facts"])
        arrays = {}
        for item in ARRAYS:
            like = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), opened.item_metadata(step)[item])
            args = ocp.args.Composite(**{item: ocp.args.StandardRestore(like)})
            arrays[item] = opened.restore(step, args=args)[item]
    with np.errstate(over="ignore"):
        found = bit_sum(arrays, _sum_of_array)
    if found != said["facts"]["sum"]:
        raise ValueError("its numbers are not those that were saved")
    saved = Saved(step, said["config"], said["facts"]["data"])
    if digest(saved.config, saved.data) != said["facts"]["digest"]:
        raise ValueError("its configuration is not the one that was saved")
    return saved


@contextlib.contextmanager
def _quietly():
    """Without the pages that orbax's unfinished reads print when they are thrown away."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


def digest(*texts: Any) -> str:
    """Of what JSON can say."""
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def bit_sum(tree, of_array: Callable) -> int:
    """The bits of all numbers as uint32, each times an odd number of its own place, summed modulo 2^32.

    The same for any layout, and another after any one bit has changed.
    """
    leaves = {jax.tree_util.keystr(path, simple=True): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    # One after the other: of a sharded array it is a collective, and several under way at once may wait for each other.
    sums = {name: int(of_array(leaf)) for name, leaf in leaves.items()}
    return sum(n * (2 * zlib.crc32(name.encode()) + 1) for name, n in sums.items()) % 2**32


def _sum_of_array(array, numpy=np) -> Any:
    """For one array, of numpy or of jax.numpy."""
    bits = numpy.asarray(array).view(numpy.uint32)
    place = numpy.zeros(bits.shape, numpy.uint32)
    for axis, size in enumerate(bits.shape):
        along = numpy.arange(size, dtype=numpy.uint32).reshape([-1 if i == axis else 1 for i in range(bits.ndim)])
        place = place * numpy.uint32(size) + along
    return numpy.sum(bits * (2 * place + 1), dtype=numpy.uint32)


# A program a shape: one for all arrays takes XLA half a minute for a large network.
sum_on_devices = jax.jit(functools.partial(_sum_of_array, numpy=jnp))
