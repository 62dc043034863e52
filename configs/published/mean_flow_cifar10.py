"""MeanFlow on CIFAR-10, as the authors' PyTorch code trains it by default (v1). configs/published/mean_flow_cifar10.py

Geng et al. 2025 (arXiv 2505.13447), and the repository Gsunshine/py-meanflow; FID 2.80 in one step.
Batch, steps, learning rate, warm-up, Adam, dropout, averages: that repository; no clipping, no weight decay.
Network: its SongUNet, 55.9M parameters with the label of the augmentation.
Times: t logit-normal(-0.6, 1.6) and r logit-normal(-4, 1.6), r = min(t, r), with noise at time 1; here mirrored. A
quarter of the batch has r = t; others land there by the minimum, as published.
Weight: 1 / (|R|^2 + 1e-3)^0.75 of the squared norm over all coordinates. It moves the stationary point.
Augmentation: EDM's without rotation, probability 0.12 (Karras et al. 2022, appendix F.2), with another filter.
Precision: float32 products, as published (TF32 off).
"""

from sgflow_jax.config import fields


def get_config():
    config = fields.get_config("mean_flow")
    config.data.name = "cifar10"
    config.data.batch_size = 1024
    config.data.augment = 0.12
    config.model = fields.song_unet()
    config.model.augment_dim = 6
    config.model.dropout = 0.2
    config.model.remat = "elementwise"  # less memory, the same gradient
    config.objective.prob_diagonal = 0.25
    config.objective.time_law = "logit_normal"
    config.objective.logit_mean, config.objective.logit_std = 0.6, 1.6
    config.objective.pairing = "clipped"
    config.objective.end_law = "logit_normal"
    config.objective.end_logit_mean, config.objective.end_logit_std = 4.0, 1.6
    config.objective.weight = "adaptive"
    config.objective.weight_power, config.objective.weight_offset = 0.75, 1e-3
    config.train.num_steps = 800_000
    config.optim.learning_rate = 6e-4
    config.optim.warmup_steps = 10_000
    config.optim.clip_norm = 0.0
    config.optim.ema_decay = 0.99995
    config.optim.more_ema_decays = (0.9999, 0.9996)
    config.optim.ema_warmup = "none"
    config.eval.features = "inception"
    return config.lock()
