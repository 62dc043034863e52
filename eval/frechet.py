"""The Fréchet distance between Gaussians fitted to two sets of features, in float64."""

import contextlib
import dataclasses
from collections.abc import Iterable

import numpy as np
import scipy.linalg

from sgflow_jax.interfaces import InputError

ROUNDING = 1e-10  # relative to the trace
NEARLY_SINGULAR = 1e-12  # smallest trusted square of a Cholesky pivot, relative to the mean variance


@dataclasses.dataclass
class Moments:
    """Count, mean [D] and scatter [D, D] (sum of outer products of centred features), accumulated over batches.

    Updated as in Chan, Golub & LeVeque (1979), so that a large mean does not cancel the covariance.
    """

    count: int = 0
    _mean: np.ndarray | None = None
    _scatter: np.ndarray | None = None

    @classmethod
    def merged(cls, parts: Iterable["Moments"]) -> "Moments":
        """The moments of the features of all parts."""
        whole = cls()
        for part in parts:
            if part.count:
                whole._merge(part.count, part._mean, part._scatter)
        return whole

    def add(self, features: np.ndarray) -> None:
        """features: [n, D], finite; InputError otherwise."""
        features = np.asarray(features, np.float64)
        if not np.all(np.isfinite(features)):
            raise InputError("a feature is not finite: check the generated examples (a diverged run?)")
        if len(features):
            mean = features.mean(axis=0)
            centred = features - mean
            self._merge(len(features), mean, centred.T @ centred)

    def mean(self) -> np.ndarray:
        """[D]."""
        self._check()
        return self._mean

    def cov(self) -> np.ndarray:
        """[D, D], normalised by n - 1."""
        self._check()
        return self._scatter / (self.count - 1)

    def _merge(self, count, mean, scatter):
        if not self.count:
            self.count, self._mean, self._scatter = count, mean.copy(), scatter.copy()
            return
        total = self.count + count
        shift = mean - self._mean
        self._scatter += scatter
        self._scatter += np.outer(shift, shift * (self.count * count / total))
        self._mean = self._mean + shift * (count / total)
        self.count = total

    def _check(self):
        if self.count < 2:
            raise InputError(f"a covariance needs at least 2 examples, not {self.count}: use more")


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """mean [D] and covariance [D, D], factorised once for many distances.

    InputError for shapes that do not match, NaN or infinity, or a covariance that is not positive semidefinite.
    """

    mean: np.ndarray
    cov: np.ndarray
    _factor: np.ndarray = dataclasses.field(init=False, repr=False)  # W [D, rank] with W W^T = cov

    def __post_init__(self):
        mean, cov = np.asarray(self.mean, np.float64), np.asarray(self.cov, np.float64)
        if mean.ndim != 1 or cov.shape != mean.shape * 2:
            raise InputError(f"mean and covariance do not match ({mean.shape}, {cov.shape}): use [D] and [D, D]")
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(cov))):
            raise InputError("a mean or covariance is not finite: check the features it was made from")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", cov)
        object.__setattr__(self, "_factor", _factor(cov))

    def distance(self, other: "Gaussian") -> float:
        """See `frechet_distance`."""
        if self.mean.shape != other.mean.shape:
            raise InputError(
                f"means of {len(self.mean)} and {len(other.mean)} features do not match: use the same features"
            )
        # With A = W W^T and B = V V^T, the eigenvalues of A B are the squared singular values of W^T V.
        product = self._factor.T @ other._factor
        gram = product @ product.T if len(product) <= product.shape[1] else product.T @ product
        cross = np.sqrt(np.maximum(scipy.linalg.eigvalsh(gram), 0)).sum() if gram.size else 0.0

        difference = self.mean - other.mean
        distance = difference @ difference + np.trace(self.cov) + np.trace(other.cov) - 2 * cross
        # Both covariances are positive semidefinite, so only rounding can be below zero.
        return max(float(distance), 0.0)

    def influence(self, reference: "Gaussian", features: np.ndarray) -> np.ndarray:
        """The first-order effect [n] of each of the features [n, D] that this Gaussian was fitted to on its distance to
        the reference. Its mean is 0, and its variance over n is the variance of the distance.

        The gradient of the distance by the covariance S is I - T, with T = W (W^T S W)^(-1/2) W^T the optimal transport
        from S to the reference's W W^T (Bhatia, Jain & Lim 2019).
        """
        W = reference._factor
        variances, axes = scipy.linalg.eigh(W.T @ self.cov @ W)
        kept = variances > len(variances) * np.finfo(float).eps * np.max(variances)
        V = W @ axes[:, kept] / variances[kept] ** 0.25

        centred = features - self.mean
        spread = np.sum(centred**2, axis=1) - np.sum((centred @ V) ** 2, axis=1)
        mean_spread = np.trace(self.cov) - np.sum((self.cov @ V) * V)
        return 2 * centred @ (self.mean - reference.mean) + spread - mean_spread


def _factor(cov: np.ndarray) -> np.ndarray:
    """W [D, rank] with W W^T = cov [D, D]; InputError if there is none."""
    size = np.trace(cov)
    sound = np.max(np.abs(cov - cov.T)) <= ROUNDING * size
    if sound:
        with contextlib.suppress(scipy.linalg.LinAlgError):
            W = scipy.linalg.cholesky(cov, lower=True, check_finite=False)
            if np.min(np.diag(W)) ** 2 > NEARLY_SINGULAR * size / len(W):
                return W
        variances, axes = scipy.linalg.eigh(cov)
        sound = np.min(variances) >= -ROUNDING * size
    if not sound:
        raise InputError("a covariance is not symmetric positive semidefinite: check the features it was made from")
    # Fewer samples than dimensions: rounding in the other directions would add 1e-8 of the whole.
    kept = variances > len(variances) * np.finfo(float).eps * np.max(variances)
    return axes[:, kept] * np.sqrt(variances[kept])


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)), a squared distance (Dowson & Landau 1982).

    means [D], covariances [D, D], symmetric positive semidefinite (singular ones too: fewer samples than dimensions).
    Never negative or NaN: rounding below zero is reported as 0. InputError for arrays that do not match, are not
    finite, or covariances that are not positive semidefinite.
    """
    return Gaussian(mean_a, cov_a).distance(Gaussian(mean_b, cov_b))
