"""Flow matching on CIFAR-10, as torchcfm trains it. configs/published/flow_matching_cifar10.py

Tong et al. 2024 (arXiv 2302.00482), and the CIFAR-10 example of the repository torchcfm.
Batch, steps, learning rate, warm-up, clipping, average, dropout, mirrored images: that example.
Network: the project's U-Net with its widths, 128 x (1, 2, 2, 2), two blocks, attention at 16; 34.7M parameters (35.7M).
Times: uniform.
"""

from sgflow_jax.config import fields


def get_config():
    config = fields.get_config("flow_matching")
    config.data.name = "cifar10"
    config.data.batch_size = 128
    config.data.flip = True
    config.model = fields.unet()
    config.model.dropout = 0.1
    config.model.remat = "elementwise"  # less memory, the same gradient
    config.train.num_steps = 400_000
    config.optim.learning_rate = 2e-4
    config.optim.warmup_steps = 5_000
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.9999
    config.eval.features = "inception"
    return config.lock()
