"""Precision and recall: the fraction of one set of features inside the k-NN manifold of the other, in float64."""

from typing import NamedTuple

import numpy as np

from sgflow_jax.interfaces import InputError

NEIGHBOURS = 3
ROWS = 1000  # of the matrix of distances held at a time


class Manifold(NamedTuple):
    """Balls around points [n, D] that reach the NEIGHBOURS-th nearest other point: radii_sq [n], squared."""

    points: np.ndarray
    radii_sq: np.ndarray


class PrecisionRecall(NamedTuple):
    """precision: fraction of generated examples inside the real manifold. recall: of real ones inside the generated."""

    precision: float
    recall: float


def manifold(points: np.ndarray) -> Manifold:
    """points: [n, D]. InputError for fewer than NEIGHBOURS + 1 points."""
    points = np.asarray(points, np.float64)
    if len(points) <= NEIGHBOURS:
        raise InputError(f"precision and recall need at least {NEIGHBOURS + 1} examples, not {len(points)}: use more")
    radii_sq = []
    for start in range(0, len(points), ROWS):
        distances = squared_distances(points[start : start + ROWS], points)
        distances[np.arange(len(distances)), start + np.arange(len(distances))] = np.inf  # not its own neighbour
        radii_sq.append(np.partition(distances, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1])
    return Manifold(points, np.concatenate(radii_sq))


def precision_recall(generated: Manifold, real: Manifold) -> PrecisionRecall:
    """Kynkäänniemi et al. 2019, equations 1 and 2. Comparable only at equal numbers of examples."""
    inside_real = []
    inside_generated = np.zeros(len(real.points), bool)
    for start in range(0, len(generated.points), ROWS):
        rows = slice(start, start + ROWS)
        distances = squared_distances(generated.points[rows], real.points)
        inside_real.append(np.any(distances <= real.radii_sq, axis=1))
        inside_generated |= np.any(distances <= generated.radii_sq[rows, None], axis=0)
    return PrecisionRecall(float(np.mean(np.concatenate(inside_real))), float(np.mean(inside_generated)))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n, D], [m, D] -> |a_i - b_j|^2 [n, m], never negative."""
    # Centred, as a large common mean would cancel the differences.
    centre = b.mean(axis=0)
    a, b = a - centre, b - centre
    return np.maximum((a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T, 0)
