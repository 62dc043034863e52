"""Your own images: configs/images.py[:OBJECTIVE] --config.data.dir=PATH --config.data.size=64. See docs/data.md."""

from sgflow_jax.config import fields


def get_config(objective="sgflow"):
    config = fields.get_config(objective)
    fields.set_objective(config, warmup_steps=2_000, ramp_steps=8_000, doubling_steps=25_000, tangents="vmap")
    config.data.name = "images"
    config.data.size = 64
    config.data.channels = 3
    config.data.batch_size = 64
    config.data.flip = False  # mirrored letters, digits and sides of a face are other images; set it where they are not
    config.model = fields.unet()
    config.model.channels = 64
    config.model.channel_mult = (-1,)  # from data.size, as are the attention sizes
    config.model.num_blocks = 2
    config.model.attention_sizes = (-1,)
    config.model.num_classes = -1  # those of the data
    config.model.label_dropout = 0.1  # a null class, for guidance; without classes it becomes 0
    config.model.remat = "elementwise"
    config.train.num_steps = 100_000
    config.optim.schedule = "cosine"
    config.eval.num_samples = 10_000
    config.eval.features = "efficientnet_lite0"
    return config.lock()
