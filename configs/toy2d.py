"""Points in the plane: 8 Gaussians (default) or, with --config.data.name=checkerboard, a checkerboard."""

from sgflow_jax.config import fields


def get_config(objective="sgflow"):
    config = fields.get_config(objective)
    fields.set_objective(config, warmup_steps=150, ramp_steps=150, doubling_steps=500)
    config.data.name = "eight_gaussians"
    config.data.batch_size = 512
    config.model = fields.mlp()
    config.model.width = 256
    config.train.num_steps = 10_000
    config.train.log_every = 200
    config.train.preview_every = 2000
    config.train.checkpoint_every = 2000
    config.optim.learning_rate = 2e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 150
    config.optim.ema_decay = 0.999
    config.eval.batch_size = 10_000
    config.eval.num_samples = 20_000
    return config.lock()
