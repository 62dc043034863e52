"""Checkpoints (orbax), written in the background: what is trained, what is watched, and the resolved configuration."""

import contextlib
import shutil
from collections.abc import Callable
from typing import Any

import ml_collections
import orbax.checkpoint as ocp

from sgflow_jax.devices import processes
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import integrity, layout, ownership
from sgflow_jax.train_step import Monitor, TrainState

# A process that cannot write its part keeps the others waiting so long.
_COMMIT_SECONDS = 300


class Checkpoints:
    """The checkpoints of one run. Use as a context manager: leaving it waits for what is still being written.

    keep: how many to keep, the newest; keep_every: and those of every so many steps, for good (0: none). read_only: for
    evaluation; nothing is made or removed. token: of `workdir.claimed`; nothing is changed once another run has the
    directory. With several processes all must make the same calls.
    """

    def __init__(
        self, workdir: str, keep: int | None = None, keep_every: int = 0, read_only: bool = False, token: str = ""
    ):
        self._workdir, self._token = workdir, token
        self._directory = layout.checkpoints(workdir)
        if read_only and not integrity.steps(self._directory):
            raise InputError(self._none())
        if not read_only:
            disk.make_directory(self._directory)
        self._options = dict(
            max_to_keep=keep,
            keep_period=keep_every or None,
            enable_async_checkpointing=not read_only,
            async_options=ocp.AsyncOptions(timeout_secs=_COMMIT_SECONDS),
            create=not read_only,
            save_root_metadata=not read_only,
            cleanup_tmp_directories=not read_only,  # of a kill
        )
        self._write_fault: str | None = None
        self._manager = integrity.manager(self._directory, **self._options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, fault, *_) -> None:
        if fault is None or not processes.several():  # or the others, which may go on, would be waited for
            self._attempt(self._manager.close)

    def latest(self) -> int | None:
        """The newest step that was committed, None if there is none. Nothing is read."""
        return self._manager.latest_step()

    def find(self, step: int | None) -> int:
        """`step`, or the newest sound one if None; InputError if there is no such checkpoint, or it is damaged."""
        return processes.from_process(processes.on_first(lambda: self._find(step)))

    def set_aside_after(self, step: int) -> list[str]:
        """Moves those newer than `step` that are damaged out of the way of the run; where they are now."""
        self._check_claim()
        moved = processes.from_process(processes.on_first(lambda: self._set_aside(step)))
        if moved:
            self._manager.reload()
        return moved

    def save(
        self, step: int, state: TrainState, monitor: Monitor, config: ml_collections.ConfigDict, data: dict
    ) -> None:
        """Starts writing; the arrays are copied before this returns. The newest step again is left alone.

        data: `data.Source.identity`, which must be the same when the run continues. Whether it worked is known later:
        see `write_fault`. InputError if another run has taken the directory over.
        """
        self._check_claim()
        if step == self.latest():
            return
        saved = {"state": state, "monitor": monitor}
        facts = {
            "format": integrity.FORMAT,
            "sum": integrity.bit_sum(saved, integrity.sum_on_devices),
            "data": data,
            "digest": integrity.digest(config.to_dict(), data),
        }
        items = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in saved.items()},
            config=ocp.args.JsonSave(config.to_dict()),
            facts=ocp.args.JsonSave(facts),
        )

        def write():
            if not self._manager.save(step, args=items):
                raise ValueError(f"there is a newer one, of step {self.latest()}")

        self._attempt(write)

    def write_fault(self, wait: bool = False) -> str | None:
        """Why the last save failed, on any process, told once; None if it has not (so far, or, with `wait`, at all).

        What was written of it is gone, and the steps before it are untouched: save again.
        """
        # Never check_for_errors: it takes the error away from orbax's own thread, which then removes older steps.
        if wait or not self._manager.is_saving_in_progress():
            self._attempt(self._manager.wait_until_finished)
        failed = processes.first_with(self._write_fault is not None)
        if failed is None:
            return None
        fault = processes.from_process(self._write_fault, failed)
        # A new manager removes what was half written, which a full disk needs most.
        with contextlib.suppress(Exception):
            self._manager.close()
        self._write_fault, self._manager = None, integrity.manager(self._directory, **self._options)
        return fault

    def config(self, step: int) -> dict[str, Any]:
        """The resolved configuration saved with a step."""
        return self._restore(step, config=ocp.args.JsonRestore())

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
        except Exception as error:  # orbax raises any kind
            said = " ".join(str(error).split())[:120]
            raise InputError(
                f"the {name} in {self._directory / str(step)} cannot be read ({type(error).__name__}, {said}): check "
                "that it is of this run and this version"
            ) from error

    def _check_claim(self) -> None:
        if self._token:
            processes.on_first(lambda: ownership.check_claim(self._workdir, self._token))

    def _attempt(self, write: Callable) -> None:
        try:
            write()
        except Exception as error:  # of orbax and TensorStore, any kind: a full disk is a ValueError
            said = " ".join(str(error).split()) or type(error).__name__
            self._write_fault = said if len(said) < 160 else f"{said[:60]} ... {said[-90:]}"  # the cause stands last

    def _none(self) -> str:
        return f"{self._workdir} has no checkpoint: train first, or name the directory of a run"

    def _find(self, step: int | None) -> int:
        if step is None:
            if (found := integrity.newest(self._workdir)) is None:
                raise InputError(self._none())
            return found.step
        if step not in (known := integrity.steps(self._directory)):
            had = f"it has {', '.join(map(str, known))}" if known else "it has none"
            raise InputError(f"{self._workdir} has no checkpoint of step {step}: {had}")
        if isinstance(fault := integrity.examine(self._directory, step), str):
            raise InputError(f"the checkpoint {self._directory / str(step)} is damaged ({fault}): use another step")
        return step

    def _set_aside(self, step: int) -> list[str]:
        moved = []
        for newer in integrity.steps(self._directory):
            if newer <= step or isinstance(integrity.examine(self._directory, newer), integrity.Saved):
                continue
            disk.make_directory(aside := self._directory.parent / "damaged")
            place = next(p for i in range(10**6) if not (p := aside / f"{newer}.{i}").exists())
            try:
                shutil.move(self._directory / str(newer), place)
            except OSError as error:
                raise InputError(
                    f"{self._directory / str(newer)} is damaged and cannot be moved ({error.strerror}): remove it"
                ) from error
            moved.append(str(place))
        return moved
