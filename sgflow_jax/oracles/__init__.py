"""Data distributions whose velocity and flow map are known exactly. They turn claims about objectives into tests.

An oracle has velocity(t, x), flow_map(t, u, x), average_velocity(t, u, x) (a `Net`) and sample(key, n). Times are [B],
points [B, D], in float32 or float64; derivatives with respect to t, u and x are exact, or as accurate as the map.
"""

import numpy as np

from sgflow_jax.interfaces import InputError
from sgflow_jax.interpolant import make as make_interpolant
from sgflow_jax.oracles.base import Oracle as Oracle
from sgflow_jax.oracles.gaussian import Gaussian
from sgflow_jax.oracles.labelled import LabelledMixture
from sgflow_jax.oracles.mixture import GaussianMixture, GaussianMixture1D


def gaussian(mean, cov, interpolant: str = "linear") -> Gaussian:
    """The oracle of N(mean, cov): mean [D], cov [D, D] symmetric positive definite. InputError for any other."""
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or cov.shape != (mean.size, mean.size) or not np.allclose(cov, cov.T):
        raise InputError(f"mean {mean.shape} and cov {cov.shape} do not match: use [D] and a symmetric [D, D]")
    variances, axes = np.linalg.eigh(cov)
    if variances[0] <= 0:
        raise InputError(f"cov has the eigenvalue {variances[0]}: use a positive definite matrix")
    return Gaussian(mean, variances, axes, make_interpolant(interpolant))


def gaussian_mixture(weights, means, stds, interpolant: str = "linear") -> GaussianMixture:
    """The oracle of sum_k weights[k] N(means[k], stds[k]^2). InputError for shapes or values that do not fit.

    weights [K] are divided by their sum. On the line, means and stds are [K]. In D dimensions, means are [K, D], and
    stds are [K] (isotropic) or [K, D] (along the coordinate axes).
    """
    weights, means, stds = (np.asarray(a, np.float64) for a in (weights, means, stds))
    fit = weights.ndim == 1 and means.ndim in (1, 2) and means.size and len(means) == len(weights)
    if not fit or stds.shape not in (weights.shape, means.shape):
        raise InputError(
            f"weights {weights.shape}, means {means.shape} and stds {stds.shape} do not match: "
            "use weights [K], means [K] or [K, D], and stds [K] or like means"
        )
    if not (np.all(weights > 0) and np.all(stds > 0)):
        raise InputError("a weight or a standard deviation is not positive: use positive numbers")
    if stds.ndim < means.ndim:
        stds = np.repeat(stds[:, None], means.shape[1], axis=1)
    law = GaussianMixture1D if means.ndim == 1 else GaussianMixture
    return law(*map(_frozen, (weights / weights.sum(), means, stds)), make_interpolant(interpolant))


def labelled_mixture(shares, classes, guidance: float = 1.0, interpolant: str = "linear") -> LabelledMixture:
    """The oracle of labelled data, guided with weight W = guidance: class c has the share shares[c] of the data, and
    the law `gaussian_mixture(*classes[c])`. InputError for numbers that do not fit."""
    shares = np.asarray(shares, np.float64)
    if shares.shape != (len(classes),) or not np.all(shares > 0):
        raise InputError(f"shares are {shares.tolist()}: use a positive number for each of the {len(classes)} classes")
    laws = [gaussian_mixture(*law, interpolant) for law in classes]
    weights = np.concatenate([share * np.array(law.weights) for share, law in zip(shares, laws, strict=True)])
    means, stds = (np.concatenate([getattr(law, field) for law in laws]) for field in ("means", "stds"))
    owners = tuple(c for c, law in enumerate(laws) for _ in law.weights)
    return LabelledMixture(gaussian_mixture(weights, means, stds, interpolant), owners, float(guidance))


def _frozen(a: np.ndarray) -> tuple:
    """The array [K] or [K, D] as nested tuples, which are hashable."""
    return tuple(a.tolist()) if a.ndim == 1 else tuple(map(tuple, a.tolist()))
