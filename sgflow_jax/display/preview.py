"""The picture of a network while it trains: the same noise in several numbers of steps."""

import ml_collections
import numpy as np

from sgflow_jax import data, generate
from sgflow_jax.display import figures
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective
from sgflow_jax.sampling import CALLS, Sampler


def preview(net: BoundNet, objective: Objective, config: ml_collections.ConfigDict) -> np.ndarray:
    """uint8 [h, w, 3]: a row of images or a panel of points for each of `sampling.CALLS` that the objective allows. The
    classes of a network with labels take turns.
    `generate.NotFinite` if sampling produces NaN or infinity."""
    shape, sampler = data.shape(config.data), Sampler(objective)
    count = figures.SHOWN[len(shape)]
    classes = net.model.num_classes
    labels = np.arange(count, dtype=np.int32) % classes if classes else None
    plan = generate.Plan(shape, sampler, 1, config.seed, count, labels)
    calls = sampler.possible(CALLS)
    examples = {n: generate.examples(net, plan._replace(calls=n), count) for n in calls}
    return figures.by_calls(examples, data.density(config.data.name))
