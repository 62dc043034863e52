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


class Place(NamedTuple):
    """An objective at one number of steps. mean: of its distance over seeds. behind: its difference to the best one, of
    logarithms; the pooled standard error of that is common to all. level: whether it is not clearly worse."""

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


def pooled_error(values: Values) -> tuple[float, int] | None:
    """The standard error of a difference of two objectives' mean log distances, and its degrees of freedom.

    Two seeds say little about the spread of one objective, so that of all is pooled: the residual of the two-way layout
    log distance = objective + seed, among the seeds that every objective has. None with fewer than two seeds or two
    objectives.
    """
    seeds = sorted(set.intersection(*(set(each) for each in values.values()))) if values else []
    freedom = (len(values) - 1) * (len(seeds) - 1)
    if freedom < 1:
        return None
    logs = np.log([[each[seed] for seed in seeds] for each in values.values()])
    residual = logs - logs.mean(0) - logs.mean(1, keepdims=True) + logs.mean()
    variance = np.sum(residual**2) / freedom
    return math.sqrt(2 * variance / len(seeds)), freedom


def ranking(values: Values) -> list[Place]:
    """The objectives from best to worst. Without a `pooled_error` only the best is level with itself."""
    means = {name: float(np.mean(np.log(list(each.values())))) for name, each in values.items()}
    best = min(means.values())
    pooled = pooled_error(values)
    margin = 0.0
    if pooled is not None:
        error, freedom = pooled
        margin = float(stats.t.ppf(LEVEL, freedom)) * error
    return [
        Place(name, float(np.mean(list(values[name].values()))), mean - best, mean - best <= margin)
        for name, mean in sorted(means.items(), key=lambda each: each[1])
    ]
