"""Unconditional ImageNet at 32x32, 200,000 steps of 512: configs/imagenet32.py[:OBJECTIVE].

49,784,707 parameters: the network of cifar10.py with one more level, and attention at that level too.
"""

from sgflow_jax.config import fields


def get_config(objective="sgflow"):
    config = fields.get_config(objective)
    fields.set_objective(config, warmup_steps=2_000, ramp_steps=8_000, doubling_steps=25_000, tangents="vmap")
    config.data.name = "tfds:imagenet_resized/32x32"  # has labels, which downsampled_imagenet lacks
    config.data.size = 32
    config.data.batch_size = 512
    config.data.flip = True
    config.model = fields.unet()
    config.model.channel_mult = (1, 2, 2, 2)
    config.model.attention_sizes = (16, 8)
    config.model.remat = "elementwise"
    config.eval.features = "inception"
    return config.lock()
