"""Whether a configuration is complete and its values are valid, each field alone (`check_fields`) and together."""

from typing import Any

import ml_collections

from sgflow_jax import data, models, objectives, sampling
from sgflow_jax.config import fields
from sgflow_jax.data import augmentation
from sgflow_jax.devices import sharding
from sgflow_jax.interfaces import InputError
from sgflow_jax.times import Domain

# Training stops between calls of the device for these, so they must be multiples of train.steps_per_dispatch.
_EVENTS = (
    "train.num_steps",
    "train.log_every",
    "train.preview_every",
    "train.checkpoint_every",
    "train.keep_every",
    "eval.every",
)


def check_fields(config: ml_collections.ConfigDict) -> None:
    """InputError for a missing or unknown field, or a value outside a field's type or range.

    Unknown options of an objective or a network are left to `objectives.make` and `models.make`.
    """
    given = fields.flatten(config.to_dict())
    known = fields.complete(given.get("objective.name"), given.get("model.name"))
    for name in sorted(given.keys() ^ known.keys()):
        if not name.startswith(("objective.", "model.")):
            if name in known:
                raise InputError(f"config.{name} is missing: start from sgflow_jax.config.fields.get_config()")
            raise InputError(f"unknown field config.{name}: a config file may change fields, but not add any")
    for name in sorted(given.keys() & known.keys()):
        _require(name, given[name], known[name].accepts(given[name]), known[name].allowed)


def check_config(config: ml_collections.ConfigDict) -> None:
    """InputError for the first invalid field; it names the valid values. Checks the fields alone, then together."""
    check_fields(config)
    values = fields.flatten(config.to_dict())

    def require(name: str, ok: bool, allowed: str) -> None:
        _require(name, values[name], ok, allowed)

    network, objective = models.make(**config.model), objectives.make(**config.objective)
    per_call, log_every = config.train.steps_per_dispatch, config.train.log_every
    require("eval.every", config.eval.every % log_every == 0, f"a multiple of train.log_every = {log_every}, or 0")
    for name in _EVENTS:
        require(name, max(values[name], 0) % per_call == 0, f"a multiple of train.steps_per_dispatch = {per_call}")
    require("profile.steps", *_profile_steps(config))

    if config.model.get("preconditioning") == "edm":
        alone = objective.domain is Domain.DIAGONAL
        require(
            "model.preconditioning", alone, f"none, as {config.objective.name} trains at two times, and edm has one"
        )
    able = config.model.get("augment_dim", 0) in augmentation.LABELS
    lengths = " or ".join(map(str, augmentation.LABELS))
    require("data.augment", not config.data.augment or able, f"0, or a song_unet with model.augment_dim {lengths}")
    mirrored = config.data.augment and config.data.flip
    require("data.flip", not mirrored, "false, as data.augment mirrors half of the images and tells the network")

    name, shape = config.data.name, data.shape(config.data)
    network.check(shape)
    # Only where they matter, as for some data sets they are known only once these are prepared.
    labelled = config.model.num_classes or config.eval.features == "classifier"
    classes = len(data.classes(config.data)) if labelled else 0
    labels = f"0 (no labels) or {classes}, the classes of {name}" if classes else f"0, as {name} has no labels"
    require("model.num_classes", config.model.num_classes in (0, classes), labels)
    able = [f for f in fields.FEATURES if f == "pixels" or len(shape) > 1 and (f != "classifier" or classes)]
    require("eval.features", config.eval.features in able, f"one of {', '.join(able)} for {name}")
    if config.eval.every:
        require("eval.steps", bool(config.eval.steps), "numbers of sampling steps like (1,4)")
        sampling.Sampler(objective).choose(config.eval.steps)

    teacher = config.teacher
    require("teacher.step", not teacher.step or teacher.workdir, "0, or give teacher.workdir")
    require("teacher.network", not teacher.network or teacher.workdir, "'', or give teacher.workdir")
    taught = not teacher.workdir or objective.takes_teacher
    require("teacher.workdir", taught, f"'', as {config.objective.name} takes no velocity from a teacher")
    null = objective.guidance == 1 or config.model.num_classes and config.model.label_dropout
    require("objective.guidance", null, "1, or labels and model.label_dropout")
    guided = objective.guidance == 1 or objective.domain is not Domain.TO_DATA or teacher.workdir
    require("objective.guidance", guided, f"1, or give teacher.workdir, as {config.objective.name} has no velocity")

    multiple, parts = objective.batch_multiple, config.train.microbatches
    sharding.check_batch_size(config.data.batch_size, multiple, parts, "config.data.batch_size")
    sharding.mesh(config.mesh.data, config.mesh.fsdp)


def completed(saved: dict[str, Any]) -> ml_collections.ConfigDict:
    """A configuration read from JSON, with tuples for lists and the defaults of fields that did not exist when it was
    written (they leave an old run as it was). InputError if it is not a configuration."""
    try:
        given = _with_tuples(saved)
        defaults = fields.get_config(given["objective"]["name"])
        defaults.model = fields.network(given["model"]["name"])
        for section, values in defaults.to_dict().items():
            given[section] = {**values, **given.get(section, {})} if isinstance(values, dict) else given[section]
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


def _profile_steps(config: ml_collections.ConfigDict) -> tuple[bool, str]:
    """Whether these steps can be traced, and which can."""
    steps, per_call, num_steps = config.profile.steps, config.train.steps_per_dispatch, config.train.num_steps
    ok = len(steps) == 2 and 1 <= steps[0] <= steps[1] <= num_steps
    allowed = f"the first and the last step, in order and from 1 to train.num_steps = {num_steps}, like 100,105"
    if ok and per_call > 1:
        # Whole calls of the device, like (5, 12) where each takes 4.
        ok = (steps[0] - 1) % per_call == 0 == steps[1] % per_call
        allowed = f"the step after a multiple of train.steps_per_dispatch = {per_call}, and a multiple of it"
    return ok or not steps, f"{allowed}; or () for none"


def _require(name: str, value: Any, ok: Any, allowed: str) -> None:
    if not ok:
        raise InputError(f"config.{name} is {value!r}: use {allowed}")
