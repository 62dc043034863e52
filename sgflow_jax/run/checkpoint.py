"""Writes checkpoints in the background, with orbax: training state, monitor, and resolved configuration."""

import contextlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp

from sgflow_jax.devices import processes
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import integrity, layout
from sgflow_jax.run.integrity import Saved
from sgflow_jax.run.ownership import Claim
from sgflow_jax.train_step import Monitor, TrainState

# How long the others wait for a process that cannot write its part.
_COMMIT_SECONDS = 300


class Checkpoints:
    """The checkpoints of one run. A context manager: leaving it waits for the last write.

    keep: how many to keep, the newest. keep_every: also keep those of every so many steps for good (0: none).
    read_only: nothing is made or removed. claim: of `access.claim`; once another run has taken the directory, nothing
    is changed. With several processes all must make the same calls.
    """

    def __init__(
        self,
        workdir: str,
        keep: int | None = None,
        keep_every: int = 0,
        read_only: bool = False,
        claim: Claim | None = None,
    ):
        self._workdir, self._claim = workdir, claim
        self._directory = layout.checkpoints(workdir)
        if not read_only:
            disk.make_directory(self._directory)
        self._options = dict(
            max_to_keep=keep,
            keep_period=keep_every or None,
            enable_async_checkpointing=not read_only,
            async_options=ocp.AsyncOptions(timeout_secs=_COMMIT_SECONDS),
            create=not read_only,
            save_root_metadata=not read_only,
            cleanup_tmp_directories=not read_only,  # left by a kill
        )
        self._write_fault: str | None = None
        self._manager = integrity.manager(self._directory, **self._options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, fault, *_) -> None:
        if fault is None or not processes.several():  # else it would wait for the others, which may continue
            self._attempt(self._manager.close)

    def latest(self) -> int | None:
        """The newest committed step, or None. Reads nothing."""
        return self._manager.latest_step()

    def find(self, step: int | None = None) -> Saved:
        """Verifies all of a checkpoint: of `step`, or the newest sound one. InputError if it does not exist or is
        damaged."""
        return Saved(*processes.from_first(lambda: integrity.find(self._workdir, step)))

    def newest(self) -> Saved | None:
        """As `find`; None if there is no checkpoint yet."""
        found = processes.from_first(lambda: integrity.newest(self._workdir))
        return found and Saved(*found)

    def set_aside_after(self, step: int) -> list[str]:
        """Moves damaged checkpoints newer than `step` to damaged/, out of the run's way. Returns their new paths."""
        self._check_claim()
        moved = processes.from_first(lambda: self._set_aside(step))
        if moved:
            self._manager.reload()
        return moved

    def save(
        self, step: int, state: TrainState, monitor: Monitor, config: ml_collections.ConfigDict, data: dict
    ) -> None:
        """Starts writing a checkpoint; the arrays are copied before this returns. Does nothing if `step` is the newest.

        data: `data.Source.identity`, which must be the same when the run continues. `write_fault` tells whether it
        worked. InputError if another run has taken the directory.
        """
        self._check_claim()
        if step == self.latest():
            return
        saved = {"state": _stored(state), "monitor": monitor}
        sums = integrity.bit_sums(saved, integrity.sum_on_devices)
        facts = {
            "format": integrity.FORMAT,
            "sum": sum(sums.values()) % 2**32,
            "sums": sums,
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
        """Returns the last save's error from any process and clears it, or None. With `wait`, first waits for the save
        to finish.

        After an error the half-written step is removed and earlier steps are untouched: save again.
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

    def state(self, step: int, like: TrainState) -> TrainState:
        """Reads the training state of a step. like: shapes, dtypes and shardings, which may differ from those saved."""
        return like.replace(**self._restore(step, state=ocp.args.StandardRestore(_stored(like))))

    def monitor(self, step: int, like: Monitor) -> Monitor:
        """As `state`, for the monitor."""
        return self._restore(step, monitor=ocp.args.StandardRestore(like))

    def _restore(self, step: int, **item) -> Any:
        (name,) = item
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**item))[name]
        except Exception as error:  # orbax raises any kind
            said = " ".join(str(error).split())[:120]
            raise InputError(
                f"the {name} in {self._directory / str(step)} cannot be read ({type(error).__name__}, {said}): check "
                "that this run and this version wrote it"
            ) from error

    def _check_claim(self) -> None:
        if self._claim:
            processes.on_first(self._claim.check)

    def _attempt(self, write: Callable) -> None:
        try:
            write()
        except Exception as error:  # orbax and TensorStore raise any kind: a full disk is a ValueError
            said = " ".join(str(error).split()) or type(error).__name__
            self._write_fault = said if len(said) < 160 else f"{said[:60]} ... {said[-90:]}"  # the cause comes last

    def _set_aside(self, step: int) -> list[str]:
        moved = []
        for newer in integrity.step_numbers(self._directory):
            if newer <= step or isinstance(integrity.examine(self._directory, newer), Saved):
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


def _stored(state: TrainState) -> dict[str, Any]:
    """The fields of the state that hold arrays. A run with one average is stored as before there could be more."""
    return {name: part for name, part in vars(state).items() if jax.tree.leaves(part)}
