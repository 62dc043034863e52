"""Checkpoints (orbax), written in the background: what is trained, what is watched, and the resolved configuration.

Orbax commits a step by renaming its directory, so that a kill leaves whole steps only. What it does not notice (files
cut or changed later, a directory that is no checkpoint) is noticed here: a step is used only if all of it can be read,
its numbers have the sum that was saved with them, and its configuration the digest.
"""

import contextlib
import functools
import gc
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from sgflow_jax import processes
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError
from sgflow_jax.train_step import Monitor, TrainState

_ARRAYS = ("state", "monitor")
# What orbax and TensorStore raise when they cannot write: a full disk is a ValueError.
_WRITE_ERRORS = (OSError, ValueError, RuntimeError)


class Checkpoints:
    """The checkpoints of one run. Use as a context manager: leaving it waits for what is still being written.

    keep: how many to keep, the newest; keep_every: and those of every so many steps, for good (0: none). read_only: for
    evaluation; nothing is made or removed. With several processes all must make the same calls.
    """

    def __init__(self, workdir: str, keep: int | None = None, keep_every: int = 0, read_only: bool = False):
        self._workdir = workdir
        self._directory = paths.checkpoints(workdir)
        if read_only and not self._directory.is_dir():
            raise InputError(self._none())
        if not read_only:
            paths.make_directory(self._directory)
        self._options = dict(
            max_to_keep=keep,
            keep_period=keep_every or None,
            enable_async_checkpointing=not read_only,
            create=not read_only,
            save_root_metadata=not read_only,
            cleanup_tmp_directories=not read_only,  # of a kill
        )
        self._write_fault: str | None = None
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return _manager(self._directory, **self._options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._attempt(self._manager.close)

    def newest(self) -> int | None:
        """The step of the newest sound checkpoint, None without any checkpoint; newer ones that are damaged are named
        on stderr. InputError if there are only damaged ones."""
        return processes.from_process(processes.on_first(self._newest_sound))

    def find(self, step: int | None) -> int:
        """`step`, or the newest sound one if None; InputError if there is no such checkpoint, or it is damaged."""
        found = self.newest() if step is None else step
        if found is None:
            raise InputError(self._none())
        steps = sorted(self._manager.all_steps())
        if found not in steps:
            had = f"it has {', '.join(map(str, steps))}" if steps else "it has none"
            raise InputError(f"{self._workdir} has no checkpoint of step {step}: {had}")
        if step is not None:
            processes.on_first(lambda: self._refuse_damaged(step))
        return found

    def set_aside_after(self, step: int | None) -> list[str]:
        """Moves checkpoints newer than `step`, which are damaged, out of the way of the run; where they are now."""
        moved = processes.from_process(processes.on_first(lambda: self._set_aside(step or 0)))
        if moved:
            self._manager.reload()
        return moved

    def save(
        self, step: int, state: TrainState, monitor: Monitor, config: ml_collections.ConfigDict, data: dict
    ) -> None:
        """Starts writing; the arrays are copied before this returns. A step that is there already is left alone.

        data: of the data set, what must be the same when the run continues. Whether it worked is known later: see
        `write_fault`.
        """
        if step in self._manager.all_steps():
            return
        saved = {"state": state, "monitor": monitor}
        facts = {"sum": _sum(saved, _sum_on_devices), "texts": _digest(config.to_dict(), data), "data": data}
        items = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in saved.items()},
            config=ocp.args.JsonSave(config.to_dict()),
            facts=ocp.args.JsonSave(facts),
        )
        self._attempt(lambda: self._manager.save(step, args=items))

    def write_fault(self, wait: bool = False) -> str | None:
        """Why the last save failed, on any process, told once; None if it has not (so far, or, with `wait`, at all).

        What was written of it is gone, and the steps before it are untouched: save again.
        """
        self._attempt(self._manager.wait_until_finished if wait else self._manager.check_for_errors)
        failed = processes.first_with(self._write_fault is not None)
        if failed is None:
            return None
        fault = processes.from_process(self._write_fault, failed)
        # A new manager removes what was half written, which a full disk needs most.
        with contextlib.suppress(*_WRITE_ERRORS):
            self._manager.close()
        self._write_fault, self._manager = None, self._open()
        return fault

    def config(self, step: int) -> dict[str, Any]:
        """The resolved configuration saved with a step."""
        return self._restore(step, config=ocp.args.JsonRestore())

    def data(self, step: int) -> dict[str, Any]:
        """What was saved of the data set with a step."""
        return self._restore(step, facts=ocp.args.JsonRestore())["data"]

    def state(self, step: int, like: TrainState) -> TrainState:
        """The state of a step. like: shapes, dtypes and shardings, which need not be those it was saved with."""
        return self._restore(step, state=ocp.args.StandardRestore(like))

    def monitor(self, step: int, like: Monitor) -> Monitor:
        """What was watched, as `state`."""
        return self._restore(step, monitor=ocp.args.StandardRestore(like))

    def _restore(self, step: int, **item) -> Any:
        (name,) = item
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**item))[name]
        except (OSError, KeyError, ValueError) as error:
            raise InputError(
                f"the checkpoint {self._directory / str(step)} is not one of this run ({type(error).__name__} in its "
                f"{name}): use another --workdir"
            ) from error

    def _attempt(self, write) -> None:
        try:
            write()
        except _WRITE_ERRORS as error:
            said = " ".join(str(error).split())
            self._write_fault = said if len(said) < 160 else f"{said[:60]} ... {said[-90:]}"  # the cause stands last

    def _none(self) -> str:
        return f"{self._workdir} has no checkpoint: train first, or name the directory of a run"

    def _newest_sound(self) -> int | None:
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            if (fault := self._fault(step)) is None:
                for line in damaged:
                    print(f"warning: the checkpoint {line}", file=sys.stderr)
                return step
            damaged.append(f"{self._directory / str(step)} is damaged: {fault}")
        if damaged:
            raise InputError(
                f"{self._workdir} has no checkpoint that can be read ({damaged[0]}): restore one, or use another "
                "--workdir"
            )
        return None

    def _refuse_damaged(self, step: int) -> None:
        if (fault := self._fault(step)) is not None:
            raise InputError(f"the checkpoint {self._directory / str(step)} is damaged ({fault}): use another step")

    def _fault(self, step: int) -> str | None:
        directory = self._directory / str(step)
        return _fault(str(self._directory), step, directory.stat().st_mtime_ns)

    def _set_aside(self, step: int) -> list[str]:
        moved = []
        for newer in sorted(s for s in self._manager.all_steps() if s > step):
            paths.make_directory(aside := self._directory.parent / "damaged")
            place = next(p for i in range(10**6) if not (p := aside / f"{newer}.{i}").exists())
            shutil.move(self._directory / str(newer), place)
            moved.append(str(place))
        return moved


def _manager(directory, multiprocessing_options=None, **options) -> ocp.CheckpointManager:
    """Over the four items of a checkpoint."""
    several = multiprocessing_options or ocp.options.MultiprocessingOptions()
    handlers = {name: ocp.StandardCheckpointHandler(multiprocessing_options=several) for name in _ARRAYS}
    handlers |= {name: ocp.JsonCheckpointHandler(multiprocessing_options=several) for name in ("config", "facts")}
    options = ocp.CheckpointManagerOptions(multiprocessing_options=several, **options)
    return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)


@functools.lru_cache(maxsize=64)
def _fault(directory: str, step: int, changed: int) -> str | None:
    """What is wrong with a step, which is read by this process alone; None for nothing. changed: for the cache."""
    alone = None
    if jax.process_count() > 1:
        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(me, {me}, barrier_sync_key_prefix="alone")
    options = dict(create=False, save_root_metadata=False, enable_async_checkpointing=False)
    try:
        with _quietly(), _manager(directory, **options, multiprocessing_options=alone) as manager:
            jsons = ocp.args.Composite(config=ocp.args.JsonRestore(), facts=ocp.args.JsonRestore())
            texts = manager.restore(step, args=jsons)
            config, facts = texts["config"], texts["facts"]
            expected = facts["sum"], facts["texts"]
            found_texts = _digest(config, facts["data"])
            arrays = {}
            for item in _ARRAYS:
                like = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), manager.item_metadata(step)[item])
                args = ocp.args.Composite(**{item: ocp.args.StandardRestore(like)})
                arrays[item] = manager.restore(step, args=args)[item]
    except Exception as error:  # orbax raises any kind, Exception itself among them
        return f"{type(error).__name__}, {' '.join(str(error).split())[:120]}"
    with np.errstate(over="ignore"):
        found = _sum(arrays, _sum_of_array), found_texts
    return None if found == expected else "it does not hold what was saved"


@contextlib.contextmanager
def _quietly():
    """Without the pages that orbax's unfinished reads print when they are thrown away."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


def _digest(*texts: Any) -> str:
    """Of what JSON can say."""
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()


def _sum(tree, of_array: Callable) -> int:
    """The bits of all numbers as uint32, each times an odd number of its own place, summed modulo 2^32.

    The same for any layout, and another after any one bit has changed.
    """
    sums = [of_array(leaf) for leaf in jax.tree.leaves(tree)]
    return sum(int(n) for n in jax.device_get(sums)) % 2**32


def _sum_of_array(array, numpy=np) -> Any:
    """For one array, of numpy or of jax.numpy."""
    bits = numpy.asarray(array).view(numpy.uint32)
    place = numpy.zeros(bits.shape, numpy.uint32)
    for axis, size in enumerate(bits.shape):
        along = numpy.arange(size, dtype=numpy.uint32).reshape([-1 if i == axis else 1 for i in range(bits.ndim)])
        place = place * numpy.uint32(size) + along
    return numpy.sum(bits * (2 * place + 1), dtype=numpy.uint32)


# A program a shape: one for all arrays takes XLA half a minute for a large network.
_sum_on_devices = jax.jit(functools.partial(_sum_of_array, numpy=jnp))
