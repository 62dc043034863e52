"""Every field of a run, once, with its unit. The other files change values; none adds a field."""

from typing import Any

import ml_collections

from sgflow_jax import objectives

FEATURES = ("pixels", "classifier", "efficientnet_lite0", "inception")  # what distances compare: see eval.features


def get_config(objective: str = "sgflow") -> ml_collections.ConfigDict:
    """The defaults for one objective (`objectives.names()`), as an unlocked ConfigDict without data or model."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # of parameters, batches and training noise

    # The options of an objective and their defaults live in its dataclass.
    config.objective = ml_collections.ConfigDict({"name": objective, **objectives.default_options(objective)})

    config.data = ml_collections.ConfigDict()
    config.data.name = ml_collections.config_dict.placeholder(str)  # see sgflow_jax.data.names()
    config.data.data_dir = ""  # where TFDS keeps its data; "" takes TFDS_DATA_DIR, or TFDS's own default
    config.data.batch_size = 128  # examples a step, over all devices and processes
    config.data.flip = False  # mirror images left to right at random

    config.data.num_workers = 0  # processes that read ahead data which are not in memory; 0 reads in threads

    config.mesh = ml_collections.ConfigDict()  # how the devices share the work: docs/scaling.md
    config.mesh.data = -1  # groups of devices, each with a copy of the parameters; -1: as the devices allow
    config.mesh.fsdp = 1  # devices in a group, over which parameters, average and optimiser are split; or -1

    config.model = ml_collections.ConfigDict()

    config.teacher = ml_collections.ConfigDict()
    config.teacher.workdir = ""  # a trained run whose velocity F(t, t, x) is distilled; "" for none
    config.teacher.step = 0  # of its checkpoint; 0 takes the newest when this run starts
    config.teacher.network = ""  # fingerprint of its network; "" takes what is there when this run starts

    config.train = ml_collections.ConfigDict()
    config.train.num_steps = 200_000  # optimiser steps
    config.train.steps_per_dispatch = 1  # steps in one call of the device; more than 1 is slow on CPU
    config.train.microbatches = 1  # parts of a batch, one after the other: the same gradient in less memory
    config.train.max_abs_loss = 1e6  # a batch whose loss per coordinate is further from 0 than this is divergence
    config.train.divergence_factor = 20.0  # so are gradients and losses of 10 steps so many times those of 100; 0: no
    config.train.on_divergence = "stop"  # or "rollback": return to the last checkpoint, skip the batches, slow down
    config.train.max_rollbacks = 3  # the next divergence stops the run
    config.train.rollback_factor = 0.5  # of the learning rate, at each rollback
    config.train.log_every = 100  # steps between lines of metrics.jsonl
    config.train.preview_every = 10_000  # steps between sample grids; 0 for none
    config.train.checkpoint_every = 5_000  # steps between checkpoints; the last step always has one
    config.train.keep_checkpoints = 3  # the newest ones
    config.train.keep_every = 0  # steps between checkpoints that are kept for good; 0 for none

    config.optim = ml_collections.ConfigDict()
    config.optim.learning_rate = 2e-4  # peak
    config.optim.schedule = "constant"  # after the warm-up: "constant" or "cosine" (to 0 at num_steps)
    config.optim.warmup_steps = 1_000  # steps over which the learning rate grows from 0
    config.optim.b1 = 0.9  # Adam's decay of the mean
    config.optim.b2 = 0.999  # Adam's decay of the square
    config.optim.clip_norm = 1.0  # largest global norm of the gradient of the loss per coordinate
    config.optim.ema_decay = 0.9999  # largest decay a step of the average of the parameters (it warms up)

    config.profile = ml_collections.ConfigDict()
    config.profile.steps = ()  # first and last of those traced for TensorBoard or Perfetto, as 100,105; () for none

    config.eval = ml_collections.ConfigDict()
    config.eval.batch_size = 500  # images a network call when sampling, over all devices
    config.eval.num_samples = 50_000  # generated images for a distance
    config.eval.features = "pixels"  # of FEATURES
    return config


def set_objective(config: ml_collections.ConfigDict, **options: Any) -> None:
    """Sets those of the options that the objective has."""
    for name in set(options) & set(config.objective):
        config.objective[name] = options[name]


def unet() -> ml_collections.ConfigDict:
    """The fields of sgflow_jax.models.unet.UNet, with the paper's CIFAR-10 sizes."""
    return ml_collections.ConfigDict(
        {
            "name": "unet",
            "channels": 128,  # width of the first level, a multiple of 4
            "channel_mult": (1, 2, 2),  # multiple of the width at each level
            "num_blocks": 3,  # residual blocks a level
            "attention_sizes": (16,),  # heights, in pixels, of the levels with self-attention; () for none at all
            "dropout": 0.0,  # share of activations
            "time_scale": 10.0,  # highest frequency of the time embedding, radians per unit of time
            "num_classes": 0,  # 0 trains without labels
            "dtype": "float32",  # of the computation: "float32" or "bfloat16"; parameters are float32
            "remat": "none",  # computed again in the backward pass: "none", "elementwise" or "block", see docs/cost.md
        }
    )


def mlp() -> ml_collections.ConfigDict:
    """The fields of sgflow_jax.models.mlp.MLP."""
    return ml_collections.ConfigDict(
        {
            "name": "mlp",
            "width": 128,  # units a layer
            "depth": 3,  # hidden layers
            "time_dim": 32,  # features for each time
            "time_scale": 10.0,  # highest frequency of the time embedding, radians per unit of time
            "num_classes": 0,  # 0 trains without labels
            "dtype": "float32",  # of the computation: "float32" or "bfloat16"; parameters are float32
        }
    )


NETWORKS = {"unet": unet, "mlp": mlp}  # by their names
