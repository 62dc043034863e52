"""From a configuration, or a run's directory, to the objects it describes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import optax
from jax.sharding import Mesh

from configs import base
from sgflow_jax import config_fields, data, integrity, models, objectives, optim, places, sampling, sharding
from sgflow_jax.checkpoint import Checkpoints
from sgflow_jax.guard import Limits
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED, InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective
from sgflow_jax.times import Domain
from sgflow_jax.train_step import TrainState, TrainStep, several

_COUNTS = (
    "train.num_steps",
    "train.steps_per_dispatch",
    "train.microbatches",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
)
_NOT_NEGATIVE = ("train.preview_every", "train.max_rollbacks", "data.num_workers", "eval.every")
_POSITIVE = (
    "train.max_abs_loss",
    "optim.learning_rate",
    "optim.eps",
    "optim.clip_norm",
    "eval.batch_size",
    "model.time_scale",
)
_EVENTS = (
    "train.num_steps",
    "train.log_every",
    "train.preview_every",
    "train.checkpoint_every",
    "train.keep_every",
    "eval.every",
)
ON_DIVERGENCE = ("stop", "rollback")


def check(config: ml_collections.ConfigDict) -> None:
    """InputError for the first field that is missing, or whose value is out of its range, with what is allowed."""
    config_fields.check(config)
    network = models.make(**config.model)

    def require(name: str, ok: bool, allowed: str) -> None:
        if not ok:
            raise InputError(f"config.{name} is {_get(config, name)!r}: use {allowed}")

    for name in _COUNTS:
        require(name, _get(config, name) >= 1, "a positive integer")
    for name in _POSITIVE:
        require(name, 0 < _get(config, name) < float("inf"), "a positive number")
    for name in _NOT_NEGATIVE:
        require(name, _get(config, name) >= 0, "a positive integer, or 0 for none")
    factor, shrink = config.train.divergence_factor, config.train.rollback_factor
    require(
        "train.divergence_factor", factor == 0 or 1 < factor < float("inf"), "a number above 1, or 0 for no such check"
    )
    require("train.on_divergence", config.train.on_divergence in ON_DIVERGENCE, " or ".join(map(repr, ON_DIVERGENCE)))
    require("train.rollback_factor", 0 < shrink <= 1, "a number in (0, 1]")
    require("optim.warmup_steps", config.optim.warmup_steps >= 0, "0 or a positive integer")
    allowed = f"2 to {MAX_SAMPLES}, a distance needs a covariance"
    for name in ("eval.num_samples", "eval.train_samples"):
        require(name, 2 <= _get(config, name) <= MAX_SAMPLES, allowed)
    every, log_every = config.eval.every, config.train.log_every
    require("eval.every", every % log_every == 0, f"a multiple of train.log_every = {log_every}, or 0 for none")
    require("seed", 0 <= config.seed <= MAX_SEED, f"an integer from 0 to {MAX_SEED}")
    for name in ("optim.b1", "optim.b2", "optim.ema_decay"):
        require(name, 0 <= _get(config, name) < 1, "a number in [0, 1)")
    keep, each = config.train.keep_every, config.train.steps_per_dispatch
    require("train.keep_every", keep >= -1, "a positive integer, 0 for none, or -1 for a tenth of the run")
    for name in _EVENTS:
        require(name, max(_get(config, name), 0) % each == 0, f"a multiple of train.steps_per_dispatch = {each}")
    require("profile.steps", *_profile_steps(config))

    shape, classes = data.shape(config.data.name), data.num_classes(config.data.name)
    allowed = (
        f"0 (no labels) or {classes}, the classes of {config.data.name}" if classes else "0: the data has no labels"
    )
    require("model.num_classes", config.model.num_classes in (0, classes), allowed)
    network.check(shape)
    able = ["pixels"] if len(shape) == 1 else [name for name in base.FEATURES if name != "classifier" or classes]
    require("eval.features", config.eval.features in able, f"one of {', '.join(able)} for {config.data.name}")

    wanted = objective(config)
    if config.eval.every:
        require("eval.steps", bool(config.eval.steps), "numbers of sampling steps like (1,4)")
        sampling.choose_calls(wanted, sampling.method_of(wanted), config.eval.steps, ())
    step = config.teacher.step
    allowed = "0 (the newest) or, with teacher.workdir, the step of a checkpoint"
    require("teacher.step", step == 0 or (step > 0 and config.teacher.workdir), allowed)
    require("teacher.network", config.teacher.workdir or not config.teacher.network, "'', or give teacher.workdir")
    allowed = f"'', {config.objective.name} uses no velocity that a teacher could give"
    require("teacher.workdir", wanted.takes_teacher or not config.teacher.workdir, allowed)
    allowed = "'pair': the batch is of all classes, and the velocity of a labelled network of one"
    require("objective.velocity_target", wanted.velocity_target == "pair" or not config.model.num_classes, allowed)
    multiple, parts = wanted.batch_multiple, config.train.microbatches
    sharding.check_batch_size(config.data.batch_size, multiple, parts, "config.data.batch_size")
    mesh(config)


def _profile_steps(config: ml_collections.ConfigDict) -> tuple[bool, str]:
    """Whether they can be traced, and which can."""
    steps, each, num_steps = config.profile.steps, config.train.steps_per_dispatch, config.train.num_steps
    ok = len(steps) == 2 and 1 <= steps[0] <= steps[1] <= num_steps
    allowed = f"the first and the last step, in order and from 1 to train.num_steps = {num_steps}, like 100,105"
    if ok and each > 1:
        # Whole calls of the device, like (5, 12) where each takes 4.
        ok = (steps[0] - 1) % each == 0 == steps[1] % each
        allowed = f"the step after a multiple of train.steps_per_dispatch = {each}, and a multiple of it"
    return ok or not steps, f"{allowed}; or () for none"


def objective(config: ml_collections.ConfigDict) -> Objective:
    """The training objective."""
    return objectives.make(**config.objective)


def mesh(config: ml_collections.ConfigDict) -> Mesh:
    """The grid of all devices. InputError if they do not make the one that is asked for."""
    return sharding.mesh(config.mesh.data, config.mesh.fsdp)


def source(config: ml_collections.ConfigDict, split: str = "train") -> data.Source:
    """The data set, or another split of it."""
    return data.make(config.data.name, config.data.data_dir, config.data.flip, split, config.data.num_workers)


def learning_rate(config: ml_collections.ConfigDict) -> optax.Schedule:
    """The learning rate at each step of this run."""
    fields = config.optim
    return optim.learning_rate(fields.learning_rate, fields.schedule, fields.warmup_steps, config.train.num_steps)


def train_step(config: ml_collections.ConfigDict, mesh: Mesh | None = None) -> TrainStep:
    """Model, objective and optimiser in one step function. mesh: where its parameters lie, if it is to be compiled for
    more than one device."""
    fields = {} if mesh is None else {"gather": functools.partial(sharding.gather, mesh)}
    return TrainStep(
        model=models.make(**config.model),
        objective=objective(config),
        optimiser=optim.adam(
            learning_rate(config), config.optim.b1, config.optim.b2, config.optim.eps, config.optim.clip_norm
        ),
        ema_decay=config.optim.ema_decay,
        limits=Limits(config.train.max_abs_loss, config.train.divergence_factor),
        rollback_factor=config.train.rollback_factor,
        microbatches=config.train.microbatches,
        **fields,
    )


def restore_net(workdir: str, step: int | None = None, ema: bool = True) -> BoundNet:
    """The trained network of a run, from its directory alone: net(t, u, x, label=None) -> like x.

    step: of the checkpoint; the newest by default. ema: the averaged parameters (default) or the last ones.
    InputError if there is no such checkpoint.
    """
    return restore(workdir, step, ema)[0]


def restore(
    workdir: str, step: int | None = None, ema: bool = True, mesh: Mesh | None = None
) -> tuple[BoundNet, ml_collections.ConfigDict, int]:
    """As `restore_net`: the network, the configuration it was trained with, and the step of the checkpoint.

    mesh: on which the parameters are to lie; all on every device by default.
    """
    with Checkpoints(workdir, read_only=True) as checkpoints:
        config, step = _recall(checkpoints, step)
        trained = train_step(config)
        state = checkpoints.state(step, state_like(config, trained, mesh or sharding.mesh()))
    return BoundNet(trained.model, state.average if ema else state.params), config, step


def compiled(step_fn: TrainStep, like: TrainState, mesh: Mesh, per_call: int = 1) -> Callable:
    """The step function, or `per_call` steps in one (see `train_step.several`), laid out on a mesh and jitted; state
    and monitor are donated. like: of `state_like`. The teacher stays where it is."""
    where, everywhere = jax.tree.map(lambda a: a.sharding, like), sharding.replicated(mesh)
    batches = sharding.split(mesh, axis=0 if per_call == 1 else 1)
    return jax.jit(
        several(step_fn, per_call),
        in_shardings=(where, everywhere, batches, everywhere, None),
        out_shardings=(where, everywhere),
        donate_argnums=sharding.donated(0, 1),
    )


def state_like(config: ml_collections.ConfigDict, step_fn: TrainStep, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the training state, which take no memory."""
    shapes = jax.eval_shape(lambda key: step_fn.init(key, data.shape(config.data.name)), jax.random.key(0))
    return jax.tree.map(
        lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where),
        shapes,
        sharding.of_state(mesh, shapes),
    )


def recall(workdir: str, step: int | None = None) -> tuple[ml_collections.ConfigDict, int]:
    """As `restore`, without reading the network: the configuration and the step of the checkpoint."""
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return _recall(checkpoints, step)


def _recall(checkpoints: Checkpoints, step: int | None) -> tuple[ml_collections.ConfigDict, int]:
    step = checkpoints.find(step)
    return config_fields.completed(checkpoints.config(step)), step


def teacher(config: ml_collections.ConfigDict, mesh: Mesh) -> tuple[BoundNet | None, int, str]:
    """The network whose velocity is distilled, the step of its checkpoint, and the network's fingerprint, which is the
    same on any devices; (None, 0, "") if there is none.

    InputError if there is no such checkpoint, its run cannot teach this one, or its network is not the one asked for.
    """
    workdir = places.run("config.teacher.workdir", config.teacher.workdir)
    if not workdir:
        return None, 0, ""
    try:
        net, theirs, step = restore(workdir, config.teacher.step or None, mesh=mesh)
    except InputError as error:
        raise InputError(f"config.teacher.workdir: {error}; if it was moved, give its new place") from error

    def require(ok: bool, fault: str) -> None:
        if not ok:
            raise InputError(f"config.teacher.workdir is {workdir!r}, {fault}: use another run")

    theirs_objective, ours = objective(theirs), objective(config)
    shapes = data.shape(theirs.data.name), data.shape(config.data.name)
    require(shapes[0] == shapes[1], f"which was trained on examples of shape {shapes[0]}, not {shapes[1]}")
    require(theirs_objective.domain is not Domain.TO_DATA, f"trained by {theirs.objective.name}, which has no velocity")
    require(
        theirs_objective.interpolant == ours.interpolant,
        f"whose interpolant is {theirs_objective.interpolant}, not {ours.interpolant}",
    )
    # The velocity of one class is not that of all.
    classes = theirs.model.num_classes, config.model.num_classes
    require(classes[0] == classes[1], f"whose model.num_classes is {classes[0]}, not {classes[1]}")
    network, asked = f"{integrity.bit_sum(net.params, integrity.sum_on_devices):08x}", config.teacher.network
    require(asked in ("", network), f"whose network of step {step} has the fingerprint {network}, not {asked}")
    return net, step, network


def _get(config: ml_collections.ConfigDict, name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config
