"""The smallest complete runs, for tests of everything above the mathematics."""

import contextlib
import resource

import jax
import ml_collections

from configs import mixture1d, quickstart
from sgflow_jax.config import fields


def mixture(objective: str = "sgflow", num_steps: int = 6) -> ml_collections.ConfigDict:
    """A few steps on the line."""
    config = mixture1d.get_config(objective)
    config.data.batch_size = 16
    config.model.width = 8
    config.model.depth = 1
    config.eval.batch_size = 40
    config.eval.num_samples = 100
    return _short(config, num_steps)


def digits(objective: str = "sgflow", num_steps: int = 2) -> ml_collections.ConfigDict:
    """A few steps on images."""
    config = quickstart.get_config(objective)
    config.data.batch_size = 8
    config.model.channels = 4
    config.model.channel_mult = (1,)
    config.eval.batch_size = 64
    config.eval.features = "pixels"  # no classifier to train
    config.eval.num_samples = 80
    return _short(config, num_steps)


def labelled(objective: str = "flow_matching", num_steps: int = 2) -> ml_collections.ConfigDict:
    """A few steps on images with labels and a null class."""
    config = digits(objective, num_steps)
    config.model.num_classes, config.model.label_dropout = 10, 0.1
    return config


def _short(config, num_steps):
    # With the default warm-up, so few steps would all be flow matching.
    fields.set_objective(config, warmup_steps=0, ramp_steps=0, doubling_steps=2)
    config.train.num_steps = num_steps
    config.train.log_every = 2
    config.train.checkpoint_every = 2
    config.train.preview_every = 0
    config.train.keep_every = 0
    return config


@contextlib.contextmanager
def files_of_at_most(size: int):
    """Simulates a full disk: a write beyond `size` bytes of a file writes a part, then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    cached = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))  # no half-written programs
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", cached)
