"""Training runs on data whose exact flow map is known."""

import contextlib
from pathlib import Path

import ml_collections

from configs import mixture1d, toy2d
from eval.exact import errors
from eval.tables import variants
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

DATA = {"mixture1d": mixture1d, "eight_gaussians": toy2d}
PER_CALL = 50  # training steps in one dispatch: these networks are small


def config_of(name: str, variant: variants.Variant, seed: int, num_steps: int | None) -> ml_collections.ConfigDict:
    """The config of one run: that of the data set, with this seed and number of steps (None: its own), no previews."""
    config = DATA[name].get_config(variant.objective)
    variant.apply(config)
    config.seed = seed
    config.train.num_steps = num_steps or config.train.num_steps
    config.train.steps_per_dispatch = PER_CALL
    config.train.preview_every = 0
    config.train.checkpoint_every = config.train.num_steps
    config.train.log_every = PER_CALL * 2
    return config


def targets(config: ml_collections.ConfigDict, folder: Path) -> errors.Targets:
    """The exact targets of a run, cached in `folder`: computing them takes longer than a run."""
    name, path = config.data.name, config.objective.interpolant
    file = folder / f"exact_{name}_{path}.npz"
    with contextlib.suppress(InputError):  # missing, or damaged
        return errors.Targets(*disk.read_arrays(file, *errors.Targets._fields))
    found = errors.targets(name, path)
    disk.write_arrays(file, found._asdict())
    return found


def check_steps(steps: float, name: str) -> None:
    """InputError unless the number of steps, called `name`, is a whole number of log intervals."""
    if not isinstance(steps, int) or steps % (2 * PER_CALL):
        raise InputError(f"{name}={steps}: use a multiple of {2 * PER_CALL}")
