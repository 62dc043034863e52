"""The Fréchet distance between Gaussians fitted to two sets of features, in float64."""

import dataclasses

import numpy as np
import scipy.linalg

from sgflow_jax.interfaces import InputError

ROUNDING = 1e-10  # relative to the trace


@dataclasses.dataclass
class Moments:
    """Mean and covariance of features that arrive in batches, without keeping them.

    Sums of features less the first batch's mean, so that a large mean does not cancel the covariance.
    """

    count: int = 0
    _origin: np.ndarray | None = None
    _sum: np.ndarray | None = None
    _outer: np.ndarray | None = None

    def add(self, features: np.ndarray) -> None:
        """features: [n, D], finite; InputError otherwise."""
        features = np.asarray(features, np.float64)
        if not np.all(np.isfinite(features)):
            raise InputError("a feature is not finite: check the generated examples (a diverged run?)")
        if self._origin is None:
            self._origin = features.mean(axis=0)
            self._sum = np.zeros_like(self._origin)
            self._outer = np.zeros((features.shape[1],) * 2)
        centred = features - self._origin
        self.count += len(centred)
        self._sum += centred.sum(axis=0)
        self._outer += centred.T @ centred

    def mean(self) -> np.ndarray:
        """[D]."""
        self._check()
        return self._origin + self._sum / self.count

    def cov(self) -> np.ndarray:
        """[D, D], normalised by n - 1."""
        self._check()
        return (self._outer - np.outer(self._sum, self._sum) / self.count) / (self.count - 1)

    def _check(self):
        if self.count < 2:
            raise InputError(f"a covariance needs at least 2 examples, not {self.count}: raise --num_samples")


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), a squared distance (Dowson & Landau 1982).

    means [D], covariances [D, D], symmetric positive semidefinite (singular ones too: fewer samples than dimensions).
    With W W^T = cov_a the eigenvalues of cov_a cov_b are those of W^T cov_b W, which is symmetric. Never negative or
    NaN: rounding below zero is reported as 0. InputError for arrays that are not finite, or covariances that are not
    positive semidefinite.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(a, np.float64) for a in (mean_a, cov_a, mean_b, cov_b))
    if mean_a.shape != mean_b.shape or not cov_a.shape == cov_b.shape == mean_a.shape * 2:
        shapes = ", ".join(str(a.shape) for a in (mean_a, cov_a, mean_b, cov_b))
        raise InputError(f"means and covariances do not match ({shapes}): use [D] and [D, D] of one D")
    if not all(np.all(np.isfinite(a)) for a in (mean_a, cov_a, mean_b, cov_b)):
        raise InputError("a mean or covariance is not finite: check the features it was made from")

    _check_covariance(cov_a)
    _check_covariance(cov_b)

    variances, axes = scipy.linalg.eigh(cov_a)
    W = axes * np.sqrt(np.maximum(variances, 0))

    product = np.maximum(scipy.linalg.eigvalsh(W.T @ cov_b @ W), 0)

    difference = mean_a - mean_b
    distance = difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(product).sum()
    # At most rounding is below zero, now that both covariances are known to be sound.
    return max(float(distance), 0.0)


def _check_covariance(cov: np.ndarray) -> None:
    """InputError unless symmetric positive semidefinite up to rounding: cov + tolerance has a Cholesky factor."""
    tolerance = max(ROUNDING * np.trace(cov), np.finfo(float).tiny)
    sound = np.max(np.abs(cov - cov.T)) <= tolerance
    try:
        scipy.linalg.cholesky(cov + tolerance * np.eye(len(cov)), check_finite=False)
    except scipy.linalg.LinAlgError:
        sound = False
    if not sound:
        raise InputError("a covariance is not symmetric positive semidefinite: check the features it was made from")
