"""Unconditional ImageNet at 64x64, 400,000 steps of 512: configs/imagenet64.py[:OBJECTIVE]. For several accelerators.

262,383,171 parameters: the widths of ADM's network for these images (Dhariwal & Nichol 2021), attention at 16 and 8. No
dropout: 160 epochs are too few to memorise images.
"""

from sgflow_jax.config import fields


def get_config(objective="sgflow"):
    config = fields.get_config(objective)
    fields.set_objective(config, warmup_steps=4_000, ramp_steps=16_000, doubling_steps=50_000, tangents="vmap")
    config.data.name = "tfds:imagenet_resized/64x64"  # has labels, which downsampled_imagenet lacks
    config.data.size = 64
    config.data.batch_size = 512
    config.data.flip = True
    config.model = fields.unet()
    config.model.channels = 192
    config.model.channel_mult = (1, 2, 3, 4)
    config.model.attention_sizes = (16, 8)
    config.model.remat = "elementwise"
    config.train.num_steps = 400_000
    config.optim.learning_rate = 1e-4
    config.optim.warmup_steps = 5_000
    config.eval.features = "inception"
    return config.lock()
