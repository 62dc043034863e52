"""What a run needs before its first step, all of it checked. Nothing is written."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from sgflow_jax import build, data
from sgflow_jax.config.check import check_config, completed
from sgflow_jax.devices import processes, sharding
from sgflow_jax.files import places
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.run import access
from sgflow_jax.run.checkpoint import Checkpoints
from sgflow_jax.run.integrity import Saved
from sgflow_jax.train_step import TrainState, TrainStep

_KEPT_SHARE = 10  # checkpoints kept for good by default


@dataclasses.dataclass(frozen=True)
class Prepared:
    """config: with what is left to the run filled in (teacher.step, train.keep_every, train.fork_from). found: what
    the workdir holds. like: shapes and shardings of the training state. teacher: None without one. origin: the
    checkpoint to begin with instead of new parameters, as (workdir, step); None without one."""

    config: ml_collections.ConfigDict
    mesh: Mesh
    step_fn: TrainStep
    like: TrainState
    found: Saved
    source: data.Source
    teacher: BoundNet | None
    origin: tuple[str, int] | None

    @property
    def beginning(self) -> int:
        """The number of steps that the state the run began with has behind it."""
        return self.origin[1] if self.origin else 0

    @property
    def start(self) -> int:
        """The number of steps that the state at the start of this process has behind it."""
        return self.found.step or self.beginning

    def batches(self, start: int, count: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of the batches from number `start`, or of `count` batches stacked along a new axis."""
        size = self.config.data.batch_size
        rows = sharding.process_rows(self.mesh, size)
        with contextlib.closing(self.source.batches(self.config.seed, start, size, rows)) as batches:
            while True:
                several = [next(batches) for _ in range(count)]
                stack = lambda *each: each[0] if count == 1 else np.stack(each)  # noqa: E731
                yield jax.tree.map(stack, *several)


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Prepared:
    """InputError for a bad configuration, data set or workdir, or a teacher or an origin that does not fit."""
    check_config(config)
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
    return Prepared(config, mesh, step_fn, like, found, source, teacher, origin)


def origin_state(origin: tuple[str, int], like: TrainState) -> TrainState:
    """The state in the checkpoint a run begins with, on its devices; it has not been rolled back."""
    with Checkpoints(origin[0], read_only=True) as checkpoints:
        state = checkpoints.state(origin[1], like)
    return state.replace(rollbacks=state.rollbacks * 0)


def _filled_in(config: ml_collections.ConfigDict, found: Saved) -> ml_collections.ConfigDict:
    """A copy in which what the run decided when it started is as it was then."""
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
    """A copy in which train.fork_from is as a run records it, so that the same command continues the run. The other run
    may be gone by then."""
    config = config.copy_and_resolve_references()
    workdir, step = _named(config.train.fork_from)
    if workdir:
        plain = places.run("config.train.fork_from", workdir)
        config.train.fork_from = plain if step is None else f"{plain}@{step}"
    return config


def _named(text: str) -> tuple[str, int | None]:
    """What RUN@STEP says; no step of RUN alone."""
    workdir, at, number = text.rpartition("@")
    return (workdir, int(number)) if at and number.isdecimal() and len(number) < 20 else (text, None)


def _origin(config: ml_collections.ConfigDict, like: TrainState) -> tuple[str, int] | None:
    """The checkpoint of train.fork_from; InputError if it is not there, or its arrays are not those of this run."""
    text = config.train.fork_from
    if not text:
        return None
    workdir, step = _named(text)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        saved = checkpoints.find(step)
    theirs, step = completed(saved.config), saved.step
    field = f"config.train.fork_from is {text!r}"
    if step >= config.train.num_steps:
        raise InputError(f"{field}, and train.num_steps is {config.train.num_steps}: use more than {step} steps")
    if step % (each := config.train.steps_per_dispatch):
        raise InputError(
            f"{field}, and step {step} is no multiple of train.steps_per_dispatch = {each}: use another step, or 1"
        )
    shapes = [_shapes(build.state_like(theirs, build.train_step(theirs), build.mesh(config))), _shapes(like)]
    if differing := sorted(set(shapes[0].items()) ^ set(shapes[1].items())):
        name = differing[0][0]
        both = " and ".join(
            f"{each.get(name, 'absent')} {place}" for each, place in zip(shapes, ("there", "here"), strict=True)
        )
        raise InputError(f"{field}, a run of another network: {name} is {both}; use the same model fields as that run")
    return workdir, step


def _shapes(state: TrainState) -> dict[str, tuple[int, ...]]:
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in paths}
