"""The kernel distance (KID) between two sets of features: an unbiased squared maximum mean discrepancy, in float64."""

from typing import NamedTuple

import numpy as np

from sgflow_jax.interfaces import InputError

COUNT = 5000  # features of each set that are compared at most: bounds the time
BLOCKS = 10  # of the jackknife


class KernelDistance(NamedTuple):
    """value: unbiased, so it may be negative. standard_error: None for fewer than 4 examples per set."""

    value: float
    standard_error: float | None


def kernel_distance(a: np.ndarray, b: np.ndarray) -> KernelDistance:
    """E k(x, x') + E k(y, y') - 2 E k(x, y) over all pairs of different examples (Gretton et al. 2012, equation 3),
    with k(x, y) = (x . y / D + 1)^3 (Binkowski et al. 2018, section 4); the standard error by a jackknife over BLOCKS.

    a, b: [n, D] and [m, D], each in random order; the first min(n, m, COUNT) of each are used. InputError for fewer
    than 2.
    """
    count = min(len(a), len(b), COUNT)
    if count < 2:
        raise InputError(f"a kernel distance needs at least 2 examples, not {count}: use more")
    a, b = (np.array_split(np.asarray(x[:count], np.float64), min(BLOCKS, count // 2)) for x in (a, b))
    sizes = np.array([len(block) for block in a])
    within, across = _within(a) + _within(b), _sums(a, b)

    def distance(chosen):
        n = sizes[chosen].sum()
        return within[np.ix_(chosen, chosen)].sum() / (n * (n - 1)) - 2 * across[np.ix_(chosen, chosen)].sum() / n**2

    every = np.arange(len(sizes))
    value = float(distance(every))
    if len(every) < 2:
        return KernelDistance(value, None)
    without = [distance(np.delete(every, block)) for block in every]
    return KernelDistance(value, float(np.sqrt((len(every) - 1) * np.var(without))))


def _within(blocks: list[np.ndarray]) -> np.ndarray:
    """Sums of the kernel over pairs of different examples, by block: [B, B]."""
    own = [_cubed((block * block).sum(axis=1) / block.shape[1] + 1).sum() for block in blocks]
    return _sums(blocks, blocks) - np.diag(own)


def _sums(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    """Sums of the kernel over pairs with one example from each set, by block: [B, B]."""
    return np.array([[_cubed(x @ y.T / x.shape[1] + 1).sum() for y in b] for x in a])


def _cubed(x: np.ndarray) -> np.ndarray:
    return x * x * x  # many times faster than a power
