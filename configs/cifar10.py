"""The paper's task: unconditional CIFAR-10, 200,000 steps. configs/cifar10.py[:OBJECTIVE]."""

from sgflow_jax.config import fields


def get_config(objective="sgflow"):
    config = fields.get_config(objective)
    fields.set_objective(config, warmup_steps=2_000, ramp_steps=8_000, doubling_steps=25_000, tangents="vmap")
    config.data.name = "cifar10"
    config.data.flip = True
    config.model = fields.unet()
    config.model.dropout = 0.1
    config.model.remat = "elementwise"
    config.eval.features = "inception"
    return config.lock()
