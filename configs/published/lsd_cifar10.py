"""Lagrangian self-distillation on CIFAR-10. configs/published/lsd_cifar10.py

Boffi et al. 2025 (arXiv 2505.18825); FID 8.10, 4.37, 3.34, 3.33 and 3.57 in 1, 2, 4, 8 and 16 steps.
Batch, steps, learning rate and its decay, clipping, averages, dropout, share of the diagonal: their experiments.
Times: uniform on the triangle t < u. Dropout: on the diagonal only.
Weight: exp(-w) loss + w with a learned w(t, u), as in EDM2 (Karras et al. 2024, arXiv 2312.02696).
Not to be had: their network, EDM2's with 128 channels; here it is DDPM++ with the same widths and blocks.
"""

from sgflow_jax.config import fields


def get_config(objective="lsd"):
    config = fields.get_config(objective)
    config.data.name = "cifar10"
    config.data.batch_size = 512
    config.data.flip = True
    config.model = fields.song_unet()
    config.model.dropout = 0.13
    config.model.remat = "elementwise"  # less memory, the same gradient
    config.objective.prob_diagonal = 0.75
    config.objective.dropout = "diagonal"
    config.objective.weight = "learned"
    config.train.num_steps = 400_000
    config.optim.learning_rate = 1e-2
    config.optim.schedule = "inverse_sqrt"
    config.optim.decay_start = 35_000
    config.optim.warmup_steps = 0
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.9999
    config.optim.more_ema_decays = (0.999,)
    config.eval.features = "inception"
    return config.lock()
