"""The kernel distance (KID) between two sets of features: an unbiased squared maximum mean discrepancy, in float64."""

from typing import NamedTuple

import numpy as np

from sgflow_jax.interfaces import InputError

BLOCK = 1000  # largest number of features compared at a time
LEAST_BLOCKS = 10  # otherwise the blocks are smaller


class KernelDistance(NamedTuple):
    """value: may be negative, as it is unbiased. standard_error: None when one block is all there is."""

    value: float
    standard_error: float | None


def kernel_distance(a: np.ndarray, b: np.ndarray) -> KernelDistance:
    """The mean over disjoint blocks of both sets, which are independent, so their spread gives the standard error
    (Binkowski et al. 2018, section 4; the kernel is theirs, (x . y / D + 1)^3).

    a, b: [n, D] and [m, D], each in random order; min(n, m) of each are used. InputError for fewer than 2.
    """
    count = min(len(a), len(b))
    if count < 2:
        raise InputError(f"a kernel distance needs at least 2 examples, not {count}: use more")
    size = min(BLOCK, max(2, count // LEAST_BLOCKS))
    starts = range(0, count - size + 1, size)
    blocks = [_unbiased(*(np.asarray(x[i : i + size], np.float64) for x in (a, b))) for i in starts]
    error = np.std(blocks, ddof=1) / np.sqrt(len(blocks)) if len(blocks) > 1 else None
    return KernelDistance(float(np.mean(blocks)), None if error is None else float(error))


def _unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), over pairs of different examples (Gretton et al. 2012, equation 3)."""
    n = len(x)

    def kernel(p, q):
        return (p @ q.T / p.shape[1] + 1) ** 3

    def pairs(k):
        return (k.sum() - np.trace(k)) / (n * (n - 1))

    return pairs(kernel(x, x)) + pairs(kernel(y, y)) - 2 * kernel(x, y).mean()
