"""SGFlow on CIFAR-10 with MeanFlow's network, budget and augmentation: a proposal. configs/published/sgflow_cifar10.py

The SGFlow paper does not publish batch size, optimiser, width, dropout, augmentation or the law of (t, u).
Network, batch, steps, learning rate, averages, dropout, augmentation: as mean_flow_cifar10.py.
Objective: the project's defaults, with half of the batch on the diagonal, uniform times and no weight, since each of
these keeps the stationary point and was compared (docs/comparison.md, docs/objectives.md).
Warm-up: the off-diagonal loss begins after 1 % of the steps and grows for 4 %, as in configs/cifar10.py.
Clipping: to norm 1, unlike MeanFlow, since the loss of SGFlow is not bounded below while the velocity is wrong.
"""

from configs.published import mean_flow_cifar10
from sgflow_jax.config import fields


def get_config():
    config = mean_flow_cifar10.get_config().unlock()
    config.objective = fields.get_config("sgflow").objective
    fields.set_objective(config, warmup_steps=8_000, ramp_steps=32_000, tangents="vmap")
    config.optim.clip_norm = 1.0
    return config.lock()
