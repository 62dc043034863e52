"""Improved consistency training on CIFAR-10. configs/published/ict_cifar10.py

Song & Dhariwal 2024 (arXiv 2310.14189), Table 2 and section 3; FID 2.83 and 2.46 in 1 and 2 steps.
Batch, steps, learning rate, RAdam, average, dropout: their experiments.
Loss: pseudo-Huber distance, weight 1 / (sigma_n+1 - sigma_n), 10 intervals that double up to 1280.
Times: ln sigma ~ N(-1.1, 2^2), which is the logit of 1 - t on the linear path; here mirrored.
Not to be had: intervals equal in sigma^(1/7) from 80 to 0.002 (here equal in t); c_skip and c_out (here x + (1 - t) F).
"""

from sgflow_jax.config import fields


def get_config():
    config = fields.get_config("consistency")
    config.data.name = "cifar10"
    config.data.batch_size = 1024
    config.data.flip = True
    config.model = fields.song_unet()
    config.model.dropout = 0.3
    config.model.remat = "elementwise"  # less memory, the same gradient
    config.objective.distance = "pseudo_huber"
    config.objective.interval = "noise_level"
    config.objective.time_law = "logit_normal"
    config.objective.logit_mean, config.objective.logit_std = 1.1, 2.0
    config.objective.initial_intervals, config.objective.final_intervals = 10, 1280
    config.objective.doubling_steps = 50_000  # eight times within the 400,000 steps
    config.train.num_steps = 400_000
    config.optim.name = "radam"
    config.optim.learning_rate = 1e-4
    config.optim.warmup_steps = 0
    config.optim.clip_norm = 0.0
    config.optim.ema_decay = 0.99993
    config.eval.features = "inception"
    return config.lock()
