"""Prepares and checks everything a run needs before its first step. Writes nothing."""

import dataclasses
from typing import Any

import ml_collections
from jax.sharding import Mesh

from sgflow_jax import beginning, build, data
from sgflow_jax.beginning import Beginning
from sgflow_jax.config import automatic
from sgflow_jax.config.check import check_config
from sgflow_jax.devices import processes
from sgflow_jax.models import BoundNet
from sgflow_jax.run import access, weights_and_biases
from sgflow_jax.run.integrity import Saved
from sgflow_jax.train_step import TrainState, TrainStep

_KEPT_SHARE = 10  # by default about this many checkpoints are kept for good


@dataclasses.dataclass(frozen=True)
class Prepared:
    """config: complete, with teacher.step, train.keep_every, train.fork_from and train.init_from resolved. chosen: the
    fields that follow from the data, see `automatic.resolved`. found: the workdir's newest checkpoint. like: shapes and
    shardings of the training state. begins_with: a checkpoint of another run; None for new parameters."""

    config: ml_collections.ConfigDict
    chosen: dict[str, Any]
    mesh: Mesh
    step_fn: TrainStep
    like: TrainState
    found: Saved
    source: data.Source
    teacher: BoundNet | None
    begins_with: Beginning | None

    @property
    def first_step(self) -> int:
        """The step at which the run began: 0, or that of the forked checkpoint."""
        return self.begins_with.step if self.begins_with and self.begins_with.fork else 0

    @property
    def start(self) -> int:
        """The step from which this process trains."""
        return self.found.step or self.first_step


def prepare(config: ml_collections.ConfigDict, workdir: str) -> Prepared:
    """Checks a run. InputError for a bad configuration, data set or workdir, or an unsuitable teacher or fork."""
    config, chosen = processes.on_all(lambda: _checked(config))
    processes.on_first(lambda: weights_and_biases.check(config.log.wandb))
    mesh = build.mesh(config)
    step_fn = build.train_step(config, mesh)
    like = build.state_like(config, step_fn, mesh)
    config = beginning.spelled(config)
    found = access.previous(workdir, config)
    config = filled_in(config, found)
    teacher, config.teacher.step, config.teacher.network = build.teacher(config, mesh)
    begins_with = None if found.step else beginning.find(config, like)
    source = processes.on_all(lambda: access.check_data(workdir, found, build.source(config)))
    processes.check_same({"the data": source.identity()})
    return Prepared(config, chosen, mesh, step_fn, like, found, source, teacher, begins_with)


def _checked(config: ml_collections.ConfigDict) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
    """See `automatic.resolved`. InputError for an invalid field. Opens data whose classes only their files tell."""
    config, chosen = automatic.resolved(config)
    check_config(config)
    return config, chosen


def filled_in(config: ml_collections.ConfigDict, found: Saved) -> ml_collections.ConfigDict:
    """A copy with the values that the run resolved when it first started, in place of -1 and "". found: Saved() for a
    new run."""
    saved = found.config
    config = config.copy_and_resolve_references()
    train = config.train
    if saved is not None:
        config.teacher.step, config.teacher.network = saved["teacher"]["step"], saved["teacher"]["network"]
        for field in beginning.FIELDS:
            train[field] = saved["train"].get(field, "")  # older versions had only one
    if train.keep_every < 0 and found.step:
        train.keep_every = saved["train"]["keep_every"]
    elif train.keep_every < 0:
        share = -(-train.num_steps // _KEPT_SHARE)
        train.keep_every = -(-share // train.checkpoint_every) * train.checkpoint_every
    return config
