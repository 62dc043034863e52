"""The picture of a network while it trains: the same noise in several numbers of steps."""

import ml_collections
import numpy as np

from sgflow_jax import data, generate, sampling
from sgflow_jax.display import figures
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.base import Objective

CALLS = (1, 2, 4, 10)
IMAGES = 16
POINTS = 4096


def preview(net: BoundNet, objective: Objective, config: ml_collections.ConfigDict) -> np.ndarray:
    """uint8 [h, w, 3], a row of images or a panel of points for each of CALLS that the objective allows. InputError if
    the network gives numbers that are not finite."""
    shape, method = data.shape(config.data.name), sampling.method_of(objective)
    count = IMAGES if len(shape) == 3 else POINTS
    plan = generate.Plan(shape, 1, method, config.seed, count, objective.interpolant)
    calls = sampling.possible_calls(objective, method, CALLS)
    made = {n: generate.examples(net, plan._replace(network_calls=n), count) for n in calls}
    return figures.by_steps(made, data.density(config.data.name))
