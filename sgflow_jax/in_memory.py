"""Trains without a directory: no checkpoints, log or previews. For notebooks, figures and other short runs."""

import contextlib
import dataclasses

import jax
import ml_collections

from sgflow_jax import beginning, build, data
from sgflow_jax.config import automatic
from sgflow_jax.config.check import check_config
from sgflow_jax.guard import FAULTS
from sgflow_jax.interfaces import InputError, Stream, stream_key
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective


def train(config: ml_collections.ConfigDict, objective: Objective | None = None) -> BoundNet:
    """Trains for config.train.num_steps in this process; returns the network with the average of its parameters.

    The batches, random numbers and steps are those of `trainer.train`, so the network is the same. Fields about what a
    run writes, or how it rolls back, have no effect.
    objective: in place of the configuration's, like a control that no configuration can name.
    InputError for a bad configuration or data set, one that begins with another run, or a run that diverges.
    """
    config, _ = automatic.resolved(config)
    check_config(config)
    for field in filter(config.train.get, beginning.FIELDS):
        raise InputError(f"config.train.{field} needs a directory to record it in: use trainer.train")
    mesh = build.mesh(config)
    step_fn = build.train_step(config, mesh)
    step_fn = dataclasses.replace(step_fn, objective=objective or step_fn.objective)
    teacher, *_ = build.teacher(config, mesh)

    like = build.state_like(config, step_fn, mesh)
    advance = build.compiled(config, step_fn, like, mesh)
    state = build.first_state(config, step_fn, like)
    monitor = step_fn.init_monitor(data.batch_like(config.data, config.data.batch_size), like)
    key = stream_key(config.seed, Stream.TRAINING)
    with contextlib.closing(build.batches(config, build.source(config), mesh)) as batches:
        for _ in range(config.train.num_steps // config.train.steps_per_dispatch):
            state, monitor = advance(state, monitor, next(batches), key, teacher)
    if (step := int(monitor.guard.fault_step)) >= 0:
        raise InputError(f"{FAULTS[int(monitor.guard.fault)]} at step {step}: lower optim.learning_rate")
    return BoundNet(step_fn.model, jax.block_until_ready(state.average))
