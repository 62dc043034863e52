"""Builds the objects that a configuration, or a run's directory, describes."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from sgflow_jax import data, models, objectives, optim
from sgflow_jax.devices import sharding
from sgflow_jax.files import places
from sgflow_jax.guard import Limits
from sgflow_jax.interfaces import InputError, Stream, stream_key
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective
from sgflow_jax.run import access, integrity
from sgflow_jax.times import Domain
from sgflow_jax.train_step import TrainState, TrainStep, several


def objective(config: ml_collections.ConfigDict) -> Objective:
    """The training objective."""
    return objectives.make(**config.objective)


def mesh(config: ml_collections.ConfigDict) -> Mesh:
    """The grid of all devices. InputError if the configured one does not fit them."""
    return sharding.mesh(config.mesh.data, config.mesh.fsdp)


def source(config: ml_collections.ConfigDict, split: str = "train") -> data.Source:
    """The data set, or another split of it."""
    return data.read(data.request(config.data, split))


def batches(
    config: ml_collections.ConfigDict, source: data.Source, mesh: Mesh, start: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """This process's rows of the batches from number `start`, as one call of the training step takes them (`compiled`).
    Close it when done, as with `data.Source.batches`."""
    size, count = config.data.batch_size, config.train.steps_per_dispatch
    rows = sharding.process_rows(mesh, size)
    with contextlib.closing(source.batches(config.seed, start, size, rows)) as each:
        while True:
            taken = [next(each) for _ in range(count)]
            yield taken[0] if count == 1 else jax.tree.map(lambda *a: np.stack(a), *taken)


def learning_rate(config: ml_collections.ConfigDict) -> optax.Schedule:
    """The learning rate at each step of this run."""
    fields = config.optim
    return optim.learning_rate(
        fields.learning_rate, fields.schedule, fields.warmup_steps, config.train.num_steps, fields.decay_start
    )


def optimiser(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """The optimiser of this run."""
    fields = config.optim
    return optim.optimiser(
        fields.name, learning_rate(config), fields.b1, fields.b2, fields.eps, fields.weight_decay, fields.clip_norm
    )


def averaging(config: ml_collections.ConfigDict) -> optim.Averaging:
    """The averages of the parameters of this run."""
    fields, decay = config.optim, config.optim.ema_decay
    if fields.ema_half_life:
        decay = optim.decay_of(fields.ema_half_life, config.data.batch_size)
    return optim.Averaging(decay, tuple(fields.more_ema_decays), fields.ema_warmup)


def train_step(config: ml_collections.ConfigDict, mesh: Mesh | None = None) -> TrainStep:
    """Model, objective and optimiser in one step function. mesh: where its parameters lie, to compile it for more than
    one device."""
    fields = {} if mesh is None else {"gather": functools.partial(sharding.gather, mesh)}
    return TrainStep(
        model=models.make(**config.model),
        objective=objective(config),
        optimiser=optimiser(config),
        averaging=averaging(config),
        limits=Limits(config.train.max_abs_loss, config.train.divergence_factor),
        rollback_factor=config.train.rollback_factor,
        microbatches=config.train.microbatches,
        augment=config.data.augment,
        **fields,
    )


def restore_net(workdir: str, step: int | None = None, ema: bool | str = True) -> BoundNet:
    """The trained network of a run, from its directory alone: net(t, u, x, label=None) -> like x.

    step: of the checkpoint; the newest by default. ema: the averaged parameters (default), the last ones (False), or
    the name of a further average, like "ema_0.9996". InputError if there is no such checkpoint or average.
    """
    parameters = {True: "ema", False: "raw"}.get(ema, ema)
    return access.open(workdir, step, parameters).net()


def first_state(config: ml_collections.ConfigDict, step_fn: TrainStep, like: TrainState) -> TrainState:
    """The training state before the first step, on the devices. like: of `state_like`."""
    init = functools.partial(step_fn.init, shape=data.shape(config.data))
    where = jax.tree.map(lambda a: a.sharding, like)
    return jax.jit(init, out_shardings=where)(stream_key(config.seed, Stream.PARAMETERS))


def batch_sharding(config: ml_collections.ConfigDict, mesh: Mesh) -> NamedSharding:
    """How the examples of one call of the training step are split over the devices. With several steps per call, the
    batches are stacked along the first axis."""
    return sharding.split(mesh, axis=0 if config.train.steps_per_dispatch == 1 else 1)


def compiled(config: ml_collections.ConfigDict, step_fn: TrainStep, like: TrainState, mesh: Mesh) -> Callable:
    """The training step, or `steps_per_dispatch` of them in one call, jitted for a mesh. State and monitor are donated;
    the teacher stays where it is. like: of `state_like`."""
    where, everywhere = jax.tree.map(lambda a: a.sharding, like), sharding.replicated(mesh)
    return jax.jit(
        several(step_fn, config.train.steps_per_dispatch),
        in_shardings=(where, everywhere, batch_sharding(config, mesh), everywhere, None),
        out_shardings=(where, everywhere),
        donate_argnums=sharding.donated(0, 1),
    )


def state_like(config: ml_collections.ConfigDict, step_fn: TrainStep, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the training state. Allocates nothing."""
    shapes = jax.eval_shape(lambda key: step_fn.init(key, data.shape(config.data)), jax.random.key(0))
    return jax.tree.map(
        lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where),
        shapes,
        sharding.of_state(mesh, shapes),
    )


def teacher(config: ml_collections.ConfigDict, mesh: Mesh) -> tuple[BoundNet | None, int, str]:
    """The network whose velocity is distilled, the step of its checkpoint, and its fingerprint, the same on any
    devices. (None, 0, "") without a teacher.

    InputError if there is no such checkpoint, its run cannot teach this one, or the fingerprint differs from
    config.teacher.network.
    """
    workdir = places.run("config.teacher.workdir", config.teacher.workdir)
    if not workdir:
        return None, 0, ""
    try:
        opened = access.open(workdir, config.teacher.step or None)
    except InputError as error:
        raise InputError(f"config.teacher.workdir: {error}; if it was moved, give its new place") from error

    def require(ok: bool, fault: str) -> None:
        if not ok:
            raise InputError(f"config.teacher.workdir is {workdir!r}, {fault}: use another run")

    theirs = opened.config
    theirs_objective, ours = objective(theirs), objective(config)
    shapes = data.shape(theirs.data), data.shape(config.data)
    require(shapes[0] == shapes[1], f"which was trained on examples of shape {shapes[0]}, not {shapes[1]}")
    require(theirs_objective.domain is not Domain.TO_DATA, f"trained by {theirs.objective.name}, which has no velocity")
    require(
        theirs_objective.interpolant == ours.interpolant,
        f"whose interpolant is {theirs_objective.interpolant}, not {ours.interpolant}",
    )
    # The velocity of one class differs from that of all classes together.
    classes = theirs.model.num_classes, config.model.num_classes
    require(classes[0] == classes[1], f"whose model.num_classes is {classes[0]}, not {classes[1]}")
    null = theirs.model.label_dropout > 0 or config.model.label_dropout == 0 and ours.guidance == 1
    require(null, "trained without the null class (model.label_dropout), which this run asks of it")
    labels = theirs.model.get("augment_dim", 0), config.model.get("augment_dim", 0)
    told = not config.data.augment or labels[0] == labels[1]
    require(told, f"whose model.augment_dim is {labels[0]}, not {labels[1]}, so it does not know data.augment")
    # `objective.guidance` of this run guides the teacher; it would do so twice.
    require(theirs_objective.guidance == 1, f"trained with objective.guidance {theirs_objective.guidance}, not 1")
    network, asked = f"{integrity.bit_sum(opened.params):08x}", config.teacher.network
    require(asked in ("", network), f"whose network of step {opened.step} has the fingerprint {network}, not {asked}")
    return opened.net(mesh), opened.step, network
