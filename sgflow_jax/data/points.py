"""Synthetic 1-D and 2-D distributions, sampled on the fly."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from sgflow_jax.data import fingerprint
from sgflow_jax.data.source import DRAW, REFERENCE, TEST, Request, Stepwise
from sgflow_jax.interfaces import InputError

Draw = Callable[[np.random.Generator, int], np.ndarray]  # (rng, n) -> [n, D]

MIXTURE1D = dict(weights=(0.6, 0.4), means=(-1.5, 2.0), stds=(0.4, 0.6))
EIGHT_GAUSSIANS = dict(  # on a circle of radius 2
    weights=(1 / 8,) * 8,
    means=tuple((2 * np.cos(k * np.pi / 4), 2 * np.sin(k * np.pi / 4)) for k in range(8)),
    stds=(0.1,) * 8,
)
REFERENCE_POINTS = 50_000


@dataclasses.dataclass(frozen=True)
class Points(Stepwise):
    """An endless stream of points. `read` serves a fixed reference sample of REFERENCE_POINTS points."""

    draw: Draw
    name: str = ""
    split: str = "train"

    classes = ()

    @property
    def size(self) -> int:
        return REFERENCE_POINTS

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(self.size, np.int32)

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint.of_examples(self)

    def batch(self, seed, step, batch_size, rows):
        x = self.draw(np.random.default_rng([DRAW, seed, step]), batch_size)[rows]
        return {"x": x.astype(np.float32), "label": np.zeros(len(x), np.int32)}

    def read(self, indices):
        return self._reference[indices]

    def identity(self) -> dict[str, Any]:
        # No fingerprint: the distribution is code, and the last bits of a cosine depend on the machine.
        return {"name": self.name, "split": self.split}

    @functools.cached_property
    def _reference(self) -> np.ndarray:
        tag = REFERENCE if self.split == "train" else TEST
        return self.draw(np.random.default_rng(tag), REFERENCE_POINTS).astype(np.float32)


def make(draw: Draw, request: Request) -> Points:
    """A stream of points. InputError if request.flip."""
    if request.flip:
        raise InputError(f"{request.name} consists of points and cannot be flipped: set data.flip to False")
    return Points(draw, request.name, request.split)


def mixture1d(rng: np.random.Generator, n: int) -> np.ndarray:
    """Two Gaussians on the line."""
    k = rng.choice(len(MIXTURE1D["weights"]), n, p=MIXTURE1D["weights"])
    return (np.array(MIXTURE1D["means"])[k] + np.array(MIXTURE1D["stds"])[k] * rng.standard_normal(n))[:, None]


def eight_gaussians(rng: np.random.Generator, n: int) -> np.ndarray:
    """Eight Gaussians on a circle."""
    k = rng.integers(8, size=n)
    stds = np.array(EIGHT_GAUSSIANS["stds"])[k, None]
    return np.array(EIGHT_GAUSSIANS["means"])[k] + stds * rng.standard_normal((n, 2))


def checkerboard(rng: np.random.Generator, n: int) -> np.ndarray:
    """The black squares of a 4 x 4 board on [-2, 2]^2."""
    column, row = rng.integers(4, size=n), rng.integers(2, size=n)
    corner = np.stack([column, 2 * row + column % 2], axis=1) - 2
    return corner + rng.random((n, 2))
