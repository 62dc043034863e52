"""EDM's network, preconditioning and recipe on CIFAR-10, as flow matching. configs/published/edm_cifar10.py

Karras et al. 2022 (arXiv 2206.00364), and the repository NVlabs/edm; FID 1.97 in 35 network calls of their sampler.
Batch, images, learning rate, warm-up (10M images), half-life of the average (500k images), dropout: that repository.
Network and preconditioning: SongUNet as DDPM++; a denoiser of x1 + sigma x0, here as a velocity.
Augmentation: theirs, with a label of 9 numbers, probability 0.12 (appendix F.2), with another filter.
Times: ln sigma ~ N(-1.2, 1.2^2), which is the logit of 1 - t on the linear path; here mirrored.
Not to be had: their weight of the loss. It is 4 (1 - t)^2 + t^2 times that of flow matching.
"""

from sgflow_jax.config import fields


def get_config():
    config = fields.get_config("flow_matching")
    config.data.name = "cifar10"
    config.data.batch_size = 512
    config.data.augment = 0.12
    config.model = fields.song_unet()
    config.model.preconditioning = "edm"
    config.model.augment_dim = 9
    config.model.dropout = 0.13
    config.model.remat = "elementwise"  # less memory, the same gradient
    config.objective.time_law = "logit_normal"
    config.objective.logit_mean, config.objective.logit_std = 1.2, 1.2
    config.train.num_steps = 390_625  # 200M images
    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 19_531  # 10M images
    config.optim.clip_norm = 0.0
    config.optim.ema_half_life = 500_000.0
    config.optim.ema_warmup = "half_life"
    config.eval.features = "inception"
    return config.lock()
