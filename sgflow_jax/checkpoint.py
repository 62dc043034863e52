"""Checkpoints (orbax): the training state and the resolved configuration in one, written in the background."""

from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp

from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError
from sgflow_jax.train_step import TrainState


class Checkpoints:
    """The checkpoints of one run. Use as a context manager: leaving it waits for what is still being written.

    keep: how many to keep, the newest. read_only: for evaluation; nothing is made or removed.
    """

    def __init__(self, workdir: str, keep: int | None = None, read_only: bool = False):
        self._workdir = workdir
        directory = paths.checkpoints(workdir)
        if read_only and not directory.is_dir():
            raise InputError(self._none())
        if not read_only:
            paths.make_directory(directory)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=not read_only,
            create=not read_only,
            save_root_metadata=not read_only,
        )
        self._manager = ocp.CheckpointManager(directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def find(self, step: int | None) -> int:
        """`step`, or the newest if None; InputError if there is no such checkpoint."""
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise InputError(self._none())
        if step is not None and step not in steps:
            raise InputError(f"{self._workdir} has no checkpoint of step {step}: it has {', '.join(map(str, steps))}")
        return steps[-1] if step is None else step

    def _none(self) -> str:
        return f"{self._workdir} has no checkpoint: train first, or name the directory of a run"

    def save(self, step: int, state: TrainState, config: ml_collections.ConfigDict) -> None:
        """Starts writing; the arrays are copied before this returns. A step that is there already is left alone."""
        if step != self.latest():
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(config.to_dict()))
            self._manager.save(step, args=items)

    def config(self, step: int) -> dict[str, Any]:
        """The resolved configuration saved with a step; InputError if it is damaged."""
        return self._restore(step, config=ocp.args.JsonRestore())

    def state(self, step: int, like: TrainState, sharding: jax.sharding.Sharding) -> TrainState:
        """The state of a step; InputError if it is damaged.

        like: shapes and dtypes (`jax.eval_shape`). sharding: where to put the arrays.
        """
        target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), like)
        return self._restore(step, state=ocp.args.StandardRestore(target))

    def _restore(self, step: int, **item) -> Any:
        (name,) = item
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**item))[name]
        except (OSError, KeyError, ValueError) as error:
            place = paths.checkpoints(self._workdir) / str(step)
            raise InputError(
                f"the checkpoint {place} cannot be read ({type(error).__name__}): remove it, the one before it is "
                "then taken"
            ) from error
