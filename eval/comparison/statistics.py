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


class Layout(NamedTuple):
    """The additive model log distance = objective + seed, fitted by least squares, so that objectives with other seeds
    compare.

    effects: of the objectives. deviation: the standard deviation of the residual, common to all objectives. freedom:
    its degrees of freedom; if 0, the deviation is unknown, NaN. columns: objectives and seeds, those of the design X.
    gram: X^T X; inverse: its pseudo-inverse.
    """

    effects: dict[str, float]
    deviation: float
    freedom: int
    columns: list[str | int]
    gram: np.ndarray
    inverse: np.ndarray

    def variance(self, first: str, second: str) -> float:
        """Of the difference of two effects, if the deviation is 1; infinite if no chain of shared seeds joins them."""
        contrast = np.array([(each == first) - (each == second) for each in self.columns], float)
        determined = np.allclose(self.gram @ self.inverse @ contrast, contrast)
        return float(contrast @ self.inverse @ contrast) if determined else math.inf

    def margin(self, worse: str, better: str) -> float:
        """How much the one's effect must exceed the other's to be called worse; NaN without degrees of freedom."""
        error = self.deviation * math.sqrt(self.variance(worse, better))
        return float(stats.t.ppf(LEVEL, self.freedom)) * error


class Place(NamedTuple):
    """An objective at one number of steps. mean: of its distance over its seeds. behind: its difference to the best
    one, of `Layout.effects`. level: whether it is not clearly worse."""

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


def layout(values: Values) -> Layout:
    """Two seeds say little about the spread of one objective, so that of all is pooled: it is the residual."""
    seeds = sorted({seed for each in values.values() for seed in each})
    columns = [*values, *seeds]
    cells = [(name, seed, math.log(value)) for name, each in values.items() for seed, value in each.items()]
    design = np.array([[each in (name, seed) for each in columns] for name, seed, _ in cells], float)
    logs = np.array([log for *_, log in cells])

    gram = design.T @ design
    inverse = np.linalg.pinv(gram)
    coefficients = inverse @ design.T @ logs
    residual = logs - design @ coefficients
    freedom = len(cells) - int(np.linalg.matrix_rank(gram))
    deviation = math.sqrt(np.sum(residual**2) / freedom) if freedom else math.nan
    effects = dict(zip(values, coefficients.tolist(), strict=False))
    return Layout(effects, deviation, freedom, columns, gram, inverse)


def ranking(values: Values) -> list[Place]:
    """The objectives from best to worst. If the spread is unknown, only the best is level with itself."""
    fit = layout(values)
    best = min(fit.effects, key=fit.effects.get)
    found = []
    for name, effect in sorted(fit.effects.items(), key=lambda each: each[1]):
        behind = effect - fit.effects[best]
        level = name == best or behind <= fit.margin(name, best)
        found.append(Place(name, float(np.mean(list(values[name].values()))), behind, level))
    return found
