"""Prepares and checks everything a run needs before its first step. Writes nothing."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from sgflow_jax import build, data
from sgflow_jax.config import automatic
from sgflow_jax.config.check import check_config, completed
from sgflow_jax.devices import processes, sharding
from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.run import access
from sgflow_jax.run.checkpoint import Checkpoints
from sgflow_jax.run.integrity import Saved
from sgflow_jax.train_step import TrainState, TrainStep

_KEPT_SHARE = 10  # by default about this many checkpoints are kept for good


@dataclasses.dataclass(frozen=True)
class Prepared:
    """config: complete, with teacher.step, train.keep_every and train.fork_from resolved. chosen: those of its fields
    that follow from the data, see `automatic.resolved`. found: the workdir's newest checkpoint. like: shapes and
    shardings of the training state. origin: the checkpoint to fork, as (workdir, step), or None for new parameters."""

    config: ml_collections.ConfigDict
    chosen: dict[str, Any]
    mesh: Mesh
    step_fn: TrainStep
    like: TrainState
    found: Saved
    source: data.Source
    teacher: BoundNet | None
    origin: tuple[str, int] | None

    @property
    def beginning(self) -> int:
        """The step at which the run began: 0, or that of the forked checkpoint."""
        return self.origin[1] if self.origin else 0

    @property
    def start(self) -> int:
        """The step from which this process trains."""
        return self.found.step or self.beginning

    def batches(self, start: int, count: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of the batches from number `start`. With count > 1, stacks as many along a first axis."""
        size = self.config.data.batch_size
        rows = sharding.process_rows(self.mesh, size)
        with contextlib.closing(self.source.batches(self.config.seed, start, size, rows)) as batches:
            while True:
                several = [next(batches) for _ in range(count)]
                stack = lambda *each: each[0] if count == 1 else np.stack(each)  # noqa: E731
                yield jax.tree.map(stack, *several)


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Prepared:
    """Checks a run. InputError for a bad configuration, data set or workdir, or an unsuitable teacher or fork."""
    config, chosen = processes.on_all(lambda: _checked(config))
    mesh = build.mesh(config)
    step_fn = build.train_step(config, mesh)
    like = build.state_like(config, step_fn, mesh)
    config = _spelled(config)
    found = access.previous(workdir, config)
    config = _filled_in(config, found)
    teacher, config.teacher.step, config.teacher.network = build.teacher(config, mesh)
    origin = None if found.step else _origin(config, like)
    if origin:
        config.train.fork_from = "@".join(map(str, origin))
    source = processes.on_all(lambda: access.check_data(workdir, found, build.source(config)))
    processes.check_same({"the data": source.identity()})
    return Prepared(config, chosen, mesh, step_fn, like, found, source, teacher, origin)


def _checked(config: ml_collections.ConfigDict) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
    """See `automatic.resolved`. InputError for an invalid field. Opens data whose classes only their files tell."""
    config, chosen = automatic.resolved(config)
    check_config(config)
    return config, chosen


def origin_state(origin: tuple[str, int], like: TrainState) -> TrainState:
    """Reads the state of the forked checkpoint onto the devices, with its count of rollbacks reset."""
    with Checkpoints(origin[0], read_only=True) as checkpoints:
        state = checkpoints.state(origin[1], like)
    return state.replace(rollbacks=state.rollbacks * 0)


def _filled_in(config: ml_collections.ConfigDict, found: Saved) -> ml_collections.ConfigDict:
    """A copy with the values that the run resolved when it first started."""
    saved = found.config
    config = config.copy_and_resolve_references()
    train = config.train
    if saved is not None:
        config.teacher.step, config.teacher.network = saved["teacher"]["step"], saved["teacher"]["network"]
        train.fork_from = saved["train"]["fork_from"]
    if train.keep_every < 0 and found.step:
        train.keep_every = saved["train"]["keep_every"]
    elif train.keep_every < 0:
        share = -(-train.num_steps // _KEPT_SHARE)
        train.keep_every = -(-share // train.checkpoint_every) * train.checkpoint_every
    return config


def _spelled(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy with train.fork_from spelled as a run records it, so that the same command continues the run, even if the
    other run no longer exists."""
    config = config.copy_and_resolve_references()
    workdir, step = _named(config.train.fork_from)
    if workdir:
        plain = places.run("config.train.fork_from", workdir)
        config.train.fork_from = plain if step is None else f"{plain}@{step}"
    return config


def _named(text: str) -> tuple[str, int | None]:
    """Splits RUN@STEP; the step is None for RUN alone."""
    workdir, at, number = text.rpartition("@")
    return (workdir, int(number)) if at and number.isdecimal() and len(number) < 20 else (text, None)


def _origin(config: ml_collections.ConfigDict, like: TrainState) -> tuple[str, int] | None:
    """The checkpoint of train.fork_from. InputError if it does not exist, or its arrays do not fit this run."""
    text = config.train.fork_from
    if not text:
        return None
    workdir, step = _named(text)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        saved = checkpoints.find(step)
    theirs, step = completed(saved.config), saved.step
    field = f"config.train.fork_from is {text!r}"
    if step >= config.train.num_steps:
        raise InputError(f"{field}, but train.num_steps is {config.train.num_steps}: use more than {step} steps")
    if step % (each := config.train.steps_per_dispatch):
        raise InputError(
            f"{field}, but step {step} is not a multiple of train.steps_per_dispatch = {each}: use another step, or 1"
        )
    shapes = [_shapes(build.state_like(theirs, build.train_step(theirs), build.mesh(config))), _shapes(like)]
    if differing := sorted(set(shapes[0].items()) ^ set(shapes[1].items())):
        name = differing[0][0]
        both = " and ".join(
            f"{each.get(name, 'absent')} {place}" for each, place in zip(shapes, ("there", "here"), strict=True)
        )
        raise InputError(f"{field}, a run of another network: {name} is {both}; use the model fields of that run")
    return workdir, step


def _shapes(state: TrainState) -> dict[str, tuple[int, ...]]:
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in paths}
