"""Every field of a configuration on one line: default, meaning, range, and what may change when a run is continued.

The options of an objective or a network, and their defaults, are in its class.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import ml_collections

from sgflow_jax import models, objectives, optim
from sgflow_jax.interfaces import MAX_SAMPLES, MAX_SEED

FEATURES = ("pixels", "classifier", "efficientnet_lite0", "inception")  # what a distance compares
ON_DIVERGENCE = ("stop", "rollback")
MAX_INTEGER = MAX_SEED  # of any field: they become int32


@dataclasses.dataclass(frozen=True)
class Field:
    """One field. Its type is that of its default; None is text that a config has to set.

    text: its meaning and unit, for --help. least and most are inclusive, above and below exclusive; `off` is allowed
    besides; choices: all allowed values. Numbers must be finite.
    item: of a tuple, stands for the type of its items, for which the limits are.
    resume: True if a run may be continued with another value, False if not, or a rule (given, saved) -> bool.
    """

    default: bool | int | float | str | tuple | None
    text: str = ""
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    off: float | None = None
    choices: tuple[str, ...] = ()
    item: int | float = 0
    resume: bool | Callable[[Any, Any], bool] = False

    def accepts(self, value: Any) -> bool:
        """Whether a value has the field's type and is in its range."""
        if self.default is None:
            return value is None or isinstance(value, str)
        if isinstance(self.default, tuple):
            each = dataclasses.replace(self, default=self.item)
            return isinstance(value, tuple | list) and all(each.accepts(item) for item in value)
        if isinstance(self.default, bool) or isinstance(value, bool):
            return type(value) is type(self.default)
        if isinstance(self.default, str):
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if not isinstance(value, int if isinstance(self.default, int) else int | float):
            return False
        if isinstance(self.default, int) and abs(value) > MAX_INTEGER:
            return False
        return value == self.off or (self.least <= value <= self.most and self.above < value < self.below)

    @property
    def allowed(self) -> str:
        """The accepted values, in the words of an error."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if isinstance(self.default, int) and not isinstance(self.default, bool):
            most = min(self.most, MAX_INTEGER)
            return f"an integer of at most {most}" if self.least < -1 else f"an integer from {self.least} to {most}"
        if isinstance(self.default, float):
            return self._numbers("a number", "a finite number")
        if isinstance(self.default, tuple) and isinstance(self.item, float):
            return self._numbers("numbers", "finite numbers")
        return {bool: "true or false", tuple: "integers like (1,2,2)"}.get(type(self.default), "text")

    def _numbers(self, bounded: str, free: str) -> str:
        limits = {">=": self.least, ">": self.above, "<=": self.most, "<": self.below}
        bounds = " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items() if math.isfinite(limit))
        number = f"{bounded} {bounds}" if bounds else free
        return number if self.off is None else f"{self.off:g} or {number}"


def _moved(given: str, saved: str) -> bool:
    """The directory of a teacher may move, but a run does not gain or lose its teacher."""
    return bool(given and saved)


def _unset(given: Any, saved: Any) -> bool:
    """0 or "" is whatever the saved run used."""
    return not given


def _newest(given: str, saved: str) -> bool:
    """A run forked from RUN has recorded RUN@STEP."""
    return not given or saved.startswith(f"{given}@")


def _fewer(given: int, saved: int) -> bool:
    """Checkpoints kept for good may become fewer from now on, but every one must still be a multiple of the new."""
    return given == -1 or (saved > 0 and given > 0 and given % saved == 0)


# Fields that may change decide how long a run takes, where its data and arrays are, what it writes and when it gives up
# or rolls back. They leave the path of the parameters so far unchanged (a cosine schedule does stretch with num_steps).
FIELDS = {
    "seed": Field(0, "seed of the parameters, the batches and the training noise", least=0),
    "objective.name": Field(None, "training loss; its options are listed below"),
    "data.name": Field(None, "data set: one of sgflow_jax.data.names(), or tfds:NAME"),
    "data.dir": Field("", "folder, .npz or .zip of images, for the data set images", resume=True),
    "data.size": Field(0, "height and width to crop and resize images to, pixels; 0: the data set's own", least=0),
    "data.channels": Field(0, "of images: 1 (grey), 3 (RGB), or 0 for the data set's own", least=0, most=3),
    "data.skip_damaged": Field(False, "leave out image files that cannot be read"),
    "data.test_share": Field(0.0, "share of the files of images that is held out as the test split", least=0, below=1),
    "data.data_dir": Field("", 'directory of the TFDS data; "": TFDS_DATA_DIR, or the default of TFDS', resume=True),
    "data.batch_size": Field(128, "global batch: examples per step, over all devices and processes"),
    "data.flip": Field(False, "mirror images left to right at random"),
    "data.augment": Field(
        0.0, "probability of each change of an image that model.augment_dim labels; 0: none", least=0, most=1
    ),
    "data.num_workers": Field(0, "processes that decode data too large for memory; 0: threads", least=0, resume=True),
    "mesh.data": Field(-1, "groups of devices, each with a copy of the parameters; -1: as many as fit", resume=True),
    "mesh.fsdp": Field(1, "devices in a group, which share parameters, average and optimiser; -1: all", resume=True),
    "model.name": Field(None, 'network: "unet" or "song_unet" for images, "mlp" for points; options below'),
    "teacher.workdir": Field("", 'trained run whose velocity F(t, t, x) is distilled; "": none', resume=_moved),
    "teacher.step": Field(0, "checkpoint of the teacher; 0: its newest when this run starts", least=0, resume=_unset),
    "teacher.network": Field("", 'fingerprint of its network; "": of that found when this run starts', resume=_unset),
    "train.num_steps": Field(200_000, "optimiser steps", least=1, resume=True),
    "train.fork_from": Field(
        "", "RUN@STEP: start from that checkpoint of another run, at its step; RUN: from its newest", resume=_newest
    ),
    "train.init_from": Field(
        "", "RUN[@STEP]: start from its parameters and average, at step 0, with a new optimiser", resume=_newest
    ),
    "train.steps_per_dispatch": Field(1, "steps in one call of the device; more than 1 is slow on CPU", least=1),
    "train.microbatches": Field(1, "parts of a batch, taken in turn: same gradient, less memory", least=1, resume=True),
    "train.max_abs_loss": Field(
        1e6, "divergence: a larger part of the loss, before weights and ramp", above=0, resume=True
    ),
    "train.divergence_factor": Field(
        20.0, "divergence: a loss or a gradient this many times its running median; 0: off", above=1, off=0, resume=True
    ),
    "train.on_divergence": Field(
        "stop", '"rollback": to the last checkpoint, with a lower learning rate', choices=ON_DIVERGENCE, resume=True
    ),
    "train.max_rollbacks": Field(3, "rollbacks before divergence stops the run", least=0, resume=True),
    "train.rollback_factor": Field(0.5, "factor on the learning rate at each rollback", above=0, most=1),
    "train.log_every": Field(100, "steps between lines of metrics.jsonl", least=1, resume=True),
    "train.preview_every": Field(10_000, "steps between sample grids; 0: none", least=0, resume=True),
    "train.checkpoint_every": Field(5_000, "steps between checkpoints; the last step has one", least=1, resume=True),
    "train.keep_checkpoints": Field(3, "how many of the newest checkpoints to keep", least=1, resume=True),
    "train.keep_every": Field(
        -1, "steps between checkpoints kept for good; 0: none; -1: a tenth of the run", least=-1, resume=_fewer
    ),
    "optim.learning_rate": Field(2e-4, "peak learning rate, after the warm-up", above=0),
    "optim.schedule": Field("constant", "after the warm-up; cosine: to 0 at num_steps", choices=optim.SCHEDULES),
    "optim.decay_start": Field(35_000, "inverse_sqrt: step after which the rate falls as 1 / sqrt(step)", least=1),
    "optim.warmup_steps": Field(1_000, "steps over which the learning rate grows from 0", least=0),
    "optim.name": Field("adam", "radam: Adam with rectified first steps", choices=tuple(optim.OPTIMISERS)),
    "optim.b1": Field(0.9, "Adam's decay of the mean", least=0, below=1),
    "optim.b2": Field(0.999, "Adam's decay of the square", least=0, below=1),
    "optim.eps": Field(1e-8, "Adam's epsilon, added to root-mean-square gradients of the loss", above=0),
    "optim.weight_decay": Field(0.0, "of every parameter, times the learning rate, as in AdamW", least=0),
    "optim.clip_norm": Field(1.0, "the gradient is scaled down to this global norm; 0: never", above=0, off=0),
    "optim.ema_decay": Field(0.9999, "decay of the parameters' average at a step, after a warm-up", least=0, below=1),
    "optim.ema_half_life": Field(0.0, "in place of it: a half-life in images; 0: ema_decay", above=0, off=0),
    "optim.more_ema_decays": Field((), "decays of further averages, like 0.9996,0.99995", least=0, below=1, item=0.0),
    "optim.ema_warmup": Field(
        "steps", "steps: decay up to (1 + n) / (10 + n); half_life: up to n / 20 steps", choices=optim.WARMUPS
    ),
    "log.wandb": Field("", 'project of Weights & Biases that shows the log too; "": none', resume=True),
    "profile.steps": Field(
        (), "first and last step to trace for TensorBoard and Perfetto, like 100,105; (): none", resume=True
    ),
    "eval.batch_size": Field(500, "examples in one network call when sampling, over all devices", least=1, resume=True),
    "eval.num_samples": Field(50_000, "generated examples for a distance", least=2, most=MAX_SAMPLES, resume=True),
    "eval.features": Field("pixels", "what a distance compares", choices=FEATURES, resume=True),
    "eval.every": Field(0, "training steps between distances while training; 0: none", least=0, resume=True),
    "eval.steps": Field((1, 4), "numbers of sampling steps of those distances", resume=True),
    "eval.train_samples": Field(2_000, "generated examples for each of them", least=2, most=MAX_SAMPLES, resume=True),
}

# Besides, the two options of networks and objectives that change only how the same numbers are computed.
MAY_CHANGE = {name for name, field in FIELDS.items() if field.resume is True} | {"model.remat", "objective.tangents"}


def get_config(objective: str = "sgflow") -> ml_collections.ConfigDict:
    """The defaults for one objective or preset (`objectives.section`): an unlocked ConfigDict, without data set and
    network."""
    tree: dict[str, Any] = {}
    for name, field in FIELDS.items():
        section, _, last = name.rpartition(".")
        place = tree.setdefault(section, {}) if section else tree
        place[last] = ml_collections.config_dict.placeholder(str) if field.default is None else field.default
    tree["objective"] = objectives.section(objective)
    return ml_collections.ConfigDict(tree)


def set_objective(config: ml_collections.ConfigDict, **options: Any) -> None:
    """Sets those of the options that the objective has."""
    for name in set(options) & set(config.objective):
        config.objective[name] = options[name]


def network(name: str) -> ml_collections.ConfigDict:
    """The section `model` for one network (`models.names()`), with its defaults."""
    return ml_collections.ConfigDict({"name": name, **models.default_options(name)})


def unet() -> ml_collections.ConfigDict:
    """The options of `models.unet.UNet`: the paper's CIFAR-10 sizes."""
    return network("unet")


def song_unet() -> ml_collections.ConfigDict:
    """The options of `models.song_unet.SongUNet`: the sizes that are published for CIFAR-10."""
    return network("song_unet")


def mlp() -> ml_collections.ConfigDict:
    """The options of `models.mlp.MLP`."""
    return network("mlp")


def complete(objective: str, model: str) -> dict[str, Field]:
    """Every field, by its full name, of a run with this objective and network. InputError if one is unknown."""
    options = {"objective": objectives.default_options(objective), "model": models.default_options(model)}
    return FIELDS | {name: Field(default) for name, default in flatten(options).items()}


def may_continue(name: str, given: dict[str, Any], saved: dict[str, Any]) -> bool:
    """Whether a run may be continued as far as one field is concerned. given, saved: flat configurations."""
    if name in MAY_CHANGE:
        return True
    if name not in given or name not in saved:
        return False
    rule = FIELDS[name].resume if name in FIELDS else False
    return given[name] == saved[name] or (callable(rule) and rule(given[name], saved[name]))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": c}} as {"a.b": c}."""
    flat = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
