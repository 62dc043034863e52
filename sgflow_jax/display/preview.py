"""The picture of a network while it trains: the same noise in several numbers of steps."""

import ml_collections
import numpy as np

from sgflow_jax import data, generate
from sgflow_jax.display import figures
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective
from sgflow_jax.sampling import CALLS, Sampler


def preview(net: BoundNet, objective: Objective, config: ml_collections.ConfigDict) -> np.ndarray:
    """uint8 [h, w, 3]: a row of images or a panel of points for each of `sampling.CALLS` that the objective allows.
    `generate.NotFinite` if sampling produces NaN or infinity."""
    shape, sampler = data.shape(config.data.name), Sampler(objective)
    count = figures.SHOWN[len(shape)]
    plan = generate.Plan(shape, sampler, 1, config.seed, count)
    calls = sampler.possible(CALLS)
    examples = {n: generate.examples(net, plan._replace(calls=n), count) for n in calls}
    return figures.by_calls(examples, data.density(config.data.name))
