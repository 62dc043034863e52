"""Every field of a run, once, with its unit. The other files change values; none adds a field."""

from typing import Any

import ml_collections

from sgflow_jax import objectives

FEATURES = ("pixels", "classifier", "efficientnet_lite0", "inception")  # what distances compare: see eval.features


def get_config(objective: str = "sgflow") -> ml_collections.ConfigDict:
    """The defaults for one objective (`objectives.names()`), as an unlocked ConfigDict without data or model."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # of the parameters, the batches and the training noise

    # The options of an objective and their defaults live in its dataclass. Time runs from noise to data: a logit_mean
    # from a paper with noise at time 1 changes its sign (MeanFlow's P_mean = -2 is +2 here).
    config.objective = ml_collections.ConfigDict({"name": objective, **objectives.default_options(objective)})

    config.data = ml_collections.ConfigDict()
    config.data.name = ml_collections.config_dict.placeholder(str)  # data set: one of sgflow_jax.data.names()
    config.data.data_dir = ""  # where TFDS keeps its data; "": TFDS_DATA_DIR, or TFDS's default
    config.data.batch_size = 128  # the global batch: examples a step, over all devices and processes
    config.data.flip = False  # mirror images left to right at random

    config.data.num_workers = 0  # processes that decode data too large for memory; 0: threads

    config.mesh = ml_collections.ConfigDict()  # how the devices share the work: docs/scaling.md
    config.mesh.data = -1  # groups of devices, each with a copy of the parameters; -1: as many as there are devices for
    config.mesh.fsdp = 1  # devices of a group, which share parameters, average and optimiser; -1: all

    config.model = ml_collections.ConfigDict()

    config.teacher = ml_collections.ConfigDict()
    config.teacher.workdir = ""  # a trained run whose velocity F(t, t, x) is distilled; "": none
    config.teacher.step = 0  # checkpoint of the teacher; 0: its newest when this run starts
    config.teacher.network = ""  # fingerprint of its network; "": of what is there when this run starts

    config.train = ml_collections.ConfigDict()
    config.train.num_steps = 200_000  # optimiser steps
    config.train.fork_from = ""  # RUN@STEP: begin with that checkpoint of another run, at its step; RUN: its newest
    config.train.steps_per_dispatch = 1  # steps in one call of the device; more than 1 is slow on CPU
    config.train.microbatches = 1  # parts of a batch, taken in turn: the same gradient in less memory
    config.train.max_abs_loss = 1e6  # a larger part of the loss, before weights and ramp, is divergence
    config.train.divergence_factor = 20.0  # so are a gradient and a loss so many times their running medians; 0: off
    config.train.on_divergence = "stop"  # "stop", or "rollback" to the last checkpoint with a lower learning rate
    config.train.max_rollbacks = 3  # rollbacks before a divergence stops the run
    config.train.rollback_factor = 0.5  # factor on the learning rate at each rollback
    config.train.log_every = 100  # steps between lines of metrics.jsonl
    config.train.preview_every = 10_000  # steps between sample grids; 0 for none
    config.train.checkpoint_every = 5_000  # steps between checkpoints; the last step always has one
    config.train.keep_checkpoints = 3  # checkpoints kept, the newest
    config.train.keep_every = -1  # steps between checkpoints that are kept for good; 0: none; -1: a tenth of the run

    config.optim = ml_collections.ConfigDict()
    config.optim.learning_rate = 2e-4  # the largest, after the warm-up
    config.optim.schedule = "constant"  # after the warm-up: "constant", or "cosine" to 0 at num_steps
    config.optim.warmup_steps = 1_000  # steps over which the learning rate grows from 0
    config.optim.b1 = 0.9  # Adam's decay of the mean
    config.optim.b2 = 0.999  # Adam's decay of the square
    config.optim.eps = 1e-8  # Adam's, beside root-mean-square gradients of the loss
    config.optim.clip_norm = 1.0  # the gradient is scaled down to this global norm
    config.optim.ema_decay = 0.9999  # largest decay of the parameters' average at each step; it warms up

    config.profile = ml_collections.ConfigDict()
    config.profile.steps = ()  # first and last step to trace for TensorBoard and Perfetto, like 100,105; (): none

    config.eval = ml_collections.ConfigDict()
    config.eval.batch_size = 500  # images in one network call when sampling, over all devices
    config.eval.num_samples = 50_000  # generated images for a distance
    config.eval.features = "pixels"  # what distances compare: one of FEATURES
    config.eval.every = 0  # training steps between distances measured while training; 0 for none
    config.eval.steps = (1, 4)  # numbers of sampling steps of those distances
    config.eval.train_samples = 2_000  # generated images for each of them
    return config


def set_objective(config: ml_collections.ConfigDict, **options: Any) -> None:
    """Sets those of the options that the objective has."""
    for name in set(options) & set(config.objective):
        config.objective[name] = options[name]


def unet() -> ml_collections.ConfigDict:
    """The fields of sgflow_jax.models.unet.UNet, with the paper's CIFAR-10 sizes."""
    return ml_collections.ConfigDict(
        {
            "name": "unet",  # network: "unet" for images, "mlp" for points
            "channels": 128,  # width of the first level, a multiple of 4
            "channel_mult": (1, 2, 2),  # multiple of the width at each level
            "num_blocks": 3,  # residual blocks a level
            "attention_sizes": (16,),  # heights, in pixels, of the levels with self-attention; () for none at all
            "dropout": 0.0,  # share of activations dropped in training
            "time_scale": 10.0,  # highest frequency of the time embedding, radians per unit of time
            "num_classes": 0,  # classes of the data; 0: train without labels
            "dtype": "float32",  # type of the computation: "float32" or "bfloat16"; parameters stay float32
            "precision": "highest",  # of its float32 products: "highest" (float32), "high", "default" (on a GPU TF32)
            "remat": "none",  # computed again in the backward pass: "none", "elementwise" or "block", see docs/cost.md
        }
    )


def mlp() -> ml_collections.ConfigDict:
    """The fields of sgflow_jax.models.mlp.MLP."""
    return ml_collections.ConfigDict(
        {
            "name": "mlp",  # network: "unet" for images, "mlp" for points
            "width": 128,  # units a layer
            "depth": 3,  # hidden layers
            "time_dim": 32,  # features for each time
            "time_scale": 10.0,  # highest frequency of the time embedding, radians per unit of time
            "num_classes": 0,  # classes of the data; 0: train without labels
            "dtype": "float32",  # type of the computation: "float32" or "bfloat16"; parameters stay float32
            "precision": "highest",  # of its float32 products: "highest" (float32), "high", "default" (on a GPU TF32)
        }
    )


NETWORKS = {"unet": unet, "mlp": mlp}  # by their names


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": c}} as {"a.b": c}."""
    flat = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
