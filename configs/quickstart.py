"""8x8 handwritten digits in two minutes on a laptop. configs/quickstart.py[:OBJECTIVE]."""

from sgflow_jax.config import fields


def get_config(objective="sgflow"):
    config = fields.get_config(objective)
    fields.set_objective(config, warmup_steps=40, ramp_steps=60, doubling_steps=150)
    config.data.name = "digits"
    config.data.batch_size = 64
    config.model = fields.unet()
    config.model.channels = 16
    config.model.channel_mult = (1, 2)
    config.model.num_blocks = 1
    config.model.attention_sizes = ()
    config.train.num_steps = 1500
    config.train.log_every = 50
    config.train.preview_every = 500
    config.train.checkpoint_every = 500
    config.optim.learning_rate = 2e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 75
    config.optim.ema_decay = 0.998
    config.eval.num_samples = 2000
    config.eval.features = "classifier"
    return config.lock()
