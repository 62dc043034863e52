"""From a configuration, or a run's directory, to the objects it describes."""

import functools
from collections.abc import Callable

import jax
import ml_collections
import optax
from jax.sharding import Mesh

from sgflow_jax import data, models, objectives, optim
from sgflow_jax.config.check import completed
from sgflow_jax.devices import sharding
from sgflow_jax.files import places
from sgflow_jax.guard import Limits
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective
from sgflow_jax.run import integrity
from sgflow_jax.run.checkpoint import Checkpoints
from sgflow_jax.times import Domain
from sgflow_jax.train_step import TrainState, TrainStep, several


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
    return completed(checkpoints.config(step)), step


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
