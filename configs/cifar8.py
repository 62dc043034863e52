"""CIFAR-10 at 8x8: natural images for two CPU cores, 1 million images. configs/cifar8.py[:OBJECTIVE]."""

from sgflow_jax.config import fields


def get_config(objective="sgflow"):
    config = fields.get_config(objective)
    fields.set_objective(config, warmup_steps=1_500, ramp_steps=3_000, doubling_steps=4_000)
    config.data.name = "cifar10"
    config.data.size = 8
    config.data.batch_size = 64
    config.data.flip = True
    config.model = fields.unet()
    config.model.channels = 24
    config.model.channel_mult = (1, 2)
    config.model.num_blocks = 1
    config.model.attention_sizes = ()
    config.train.num_steps = 15_624
    config.train.on_divergence = "rollback"
    config.train.preview_every = 1_953
    config.train.checkpoint_every = 1_953
    config.optim.learning_rate = 2e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 750
    config.optim.ema_decay = 0.999
    config.eval.num_samples = 5_000
    config.eval.features = "classifier"
    return config.lock()
