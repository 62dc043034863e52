"""Whether a configuration is complete: the fields of configs/base.py, each with a value of its type."""

from typing import Any

import ml_collections

from sgflow_jax import data, models, objectives, sampling
from sgflow_jax.config.fields import FEATURES, NETWORKS, flatten
from sgflow_jax.config.fields import get_config as defaults_of
from sgflow_jax.devices import sharding
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED, InputError

MAX_INTEGER = MAX_SEED  # of every field: they become int32
ALLOWED = {
    bool: "true or false",
    int: f"an integer of at most {MAX_INTEGER}",
    float: "a number",
    str: "text",
    tuple: "integers like (1,2,2)",
}


def check_fields(config: ml_collections.ConfigDict) -> None:
    """InputError for a field that is missing, that there is not, or whose value is of another type.

    Which options an objective and a network have is for their registries to say.
    """
    given = flatten(config.to_dict())
    for name, known in {"objective.name": objectives.names(), "model.name": tuple(NETWORKS)}.items():
        if given.get(name) not in known:
            raise InputError(f"config.{name} is {given.get(name)!r}: use one of {', '.join(known)}")
    like = defaults_of(given["objective.name"])
    like.model = NETWORKS[given["model.name"]]()
    defaults = flatten(like.to_dict())

    for name in sorted(given.keys() ^ defaults.keys()):
        if not name.startswith(("objective.", "model.")):
            fault = "missing" if name in defaults else "no field that there is"
            raise InputError(f"config.{name} is {fault}: change values of configs/base.py, and no names")
    for name in defaults.keys() & given.keys():
        default, value = defaults[name], given[name]
        if default is not None and not _fits(value, default):
            raise InputError(f"config.{name} is {value!r}: use {ALLOWED[type(default)]}")


def completed(saved: dict[str, Any]) -> ml_collections.ConfigDict:
    """A configuration that was written to JSON: lists are tuples again, and a field that is newer than the run has its
    default, which changes nothing. InputError if it is not a configuration."""
    try:
        given = _with_tuples(saved)
        defaults = defaults_of(given["objective"]["name"])
        defaults.model = NETWORKS[given["model"]["name"]]()
        for section, fields in defaults.to_dict().items():
            given[section] = {**fields, **given.get(section, {})} if isinstance(fields, dict) else given[section]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"the configuration of the run is damaged ({type(error).__name__}: {error}): give --config"
        ) from error
    return ml_collections.ConfigDict(given)


def _with_tuples(tree: Any) -> Any:
    """JSON has no tuples; a network's fields must be hashable."""
    if isinstance(tree, dict):
        return {key: _with_tuples(value) for key, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, tuple | list) and all(_fits(item, 0) for item in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, int):
        return isinstance(value, int) and abs(value) <= MAX_INTEGER
    return isinstance(value, int | float if isinstance(default, float) else type(default))


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


def check_config(config: ml_collections.ConfigDict) -> None:
    """InputError for the first field that is missing, or whose value is out of its range, with what is allowed."""
    check_fields(config)
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
    able = ["pixels"] if len(shape) == 1 else [name for name in FEATURES if name != "classifier" or classes]
    require("eval.features", config.eval.features in able, f"one of {', '.join(able)} for {config.data.name}")

    wanted = objectives.make(**config.objective)
    if config.eval.every:
        require("eval.steps", bool(config.eval.steps), "numbers of sampling steps like (1,4)")
        sampling.Sampler(wanted).choose(config.eval.steps)
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
    sharding.mesh(config.mesh.data, config.mesh.fsdp)


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


def _get(config: ml_collections.ConfigDict, name: str) -> Any:
    for part in name.split("."):
        config = config[part]
    return config
