"""Operations and memory of an objective's gradient, counted in the program that JAX builds, without running it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from eval.tables.variants import TRAINED
from sgflow_jax import build, data, models
from sgflow_jax.models import BoundNet
from sgflow_jax.models.trained import BoundTrainedNet, LossWeight
from sgflow_jax.objectives.base import Objective


class Cost(NamedTuple):
    """The cost of one gradient of a batch.

    flops: floating-point operations. residual_bytes: what the forward pass keeps for the backward pass (without
    dropout), less the size of the parameters, which it keeps anyway.
    """

    flops: float
    residual_bytes: int


def gradient_cost(config: ml_collections.ConfigDict, objective: Objective) -> Cost:
    """The cost of an objective with the config's network, data shape and batch size. A teacher counts as another such
    network."""
    model, shape, size = models.make(**config.model), data.shape(config.data), config.data.batch_size
    t, x = (jax.ShapeDtypeStruct((size, *rest), jnp.float32) for rest in ((), shape))
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(lambda key: build.train_step(config).init(key, shape).params, key)

    def loss(params, x0, x1, key):
        t = jnp.zeros(len(x0))
        average, loss_weight = jax.lax.stop_gradient(params), LossWeight().init(key, t, t)["params"]
        net = BoundTrainedNet(model, params, t.astype(jnp.int32), average=average, loss_weight=loss_weight)
        teacher = BoundNet(model, jax.lax.stop_gradient(params)) if config.teacher.workdir else None
        return jnp.mean(objective(net, x0, x1, key, TRAINED, teacher).per_example)

    gradient = jax.jit(jax.grad(loss)).lower(params, x, x, key)
    kept = jax.eval_shape(lambda params, *rest: jax.vjp(lambda p: loss(p, *rest), params)[1], params, x, x, key)
    size_of = lambda tree: sum(a.size * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(tree))  # noqa: E731
    return Cost(float(gradient.cost_analysis()["flops"]), size_of(kept) - size_of(params))
