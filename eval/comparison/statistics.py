"""Differences between objectives over training seeds."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95  # confidence with which an objective must be worse to be called so


class Difference(NamedTuple):
    """The mean over seeds of a paired difference, and its standard error; None for a single seed."""

    mean: float
    standard_error: float | None
    seeds: int


class Spread(NamedTuple):
    """The standard deviation of log distances over training seeds, common to all objectives, and its degrees of
    freedom."""

    deviation: float
    freedom: int

    def margin(self, first: int, second: int) -> float:
        """How much a mean of `first` seeds must exceed one of `second` seeds to be called worse."""
        error = self.deviation * math.sqrt(1 / first + 1 / second)
        return float(stats.t.ppf(LEVEL, self.freedom)) * error


class Place(NamedTuple):
    """An objective at one number of steps. mean: of its distance over seeds. behind: its difference to the best one, of
    mean log distances. level: whether it is not clearly worse."""

    name: str
    mean: float
    behind: float
    level: bool


Values = Mapping[str, Mapping[int, float]]  # a distance for each objective and seed


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """first - second over the seeds they share. None if they share none."""
    shared = sorted(set(first) & set(second))
    if not shared:
        return None
    differences = np.array([first[seed] - second[seed] for seed in shared])
    error = float(np.std(differences, ddof=1) / math.sqrt(len(shared))) if len(shared) > 1 else None
    return Difference(float(np.mean(differences)), error, len(shared))


def pooled(values: Values) -> Spread | None:
    """The spread of log distances over seeds that the seeds do not share.

    Two seeds say little about the spread of one objective, so that of all is pooled: the residual of the two-way layout
    log distance = objective + seed, of the objectives that have every seed. None with fewer than two seeds or two such
    objectives.
    """
    seeds = sorted({seed for each in values.values() for seed in each})
    whole = [each for each in values.values() if len(each) == len(seeds)]
    freedom = (len(whole) - 1) * (len(seeds) - 1)
    if freedom < 1:
        return None
    logs = np.log([[each[seed] for seed in seeds] for each in whole])
    residual = logs - logs.mean(0) - logs.mean(1, keepdims=True) + logs.mean()
    return Spread(math.sqrt(np.sum(residual**2) / freedom), freedom)


def ranking(values: Values) -> list[Place]:
    """The objectives from best to worst. If the spread is unknown, only the best is level with itself."""
    means = {name: float(np.mean(np.log(list(each.values())))) for name, each in values.items()}
    best, spread = min(means, key=means.get), pooled(values)

    def margin(name: str) -> float:
        return 0.0 if spread is None else spread.margin(len(values[name]), len(values[best]))

    return [
        Place(name, float(np.mean(list(values[name].values()))), mean - means[best], mean - means[best] <= margin(name))
        for name, mean in sorted(means.items(), key=lambda each: each[1])
    ]
