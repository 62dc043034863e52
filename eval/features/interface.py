"""What every kind of features is, and what it is asked with."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sgflow_jax.interfaces import InputError


@dataclasses.dataclass(frozen=True)
class Features:
    """features(examples) -> float32 [N, D], and what a distance between them must say of itself.

    extract: of uint8 images [N, H, W, C], or float32 points [N, D]. weights: the first 12 digits of the SHA-256 of the
    network's weights, "" for none. resize: the rule images are enlarged by, "" for none. classify: from features
    [N, D] to labels [N] of `classes` classes, where there is such a thing.
    """

    name: str
    extract: Callable[[np.ndarray], np.ndarray]
    weights: str = ""
    resize: str = ""
    classify: Callable[[np.ndarray], np.ndarray] | None = None
    classes: int = 0

    def __call__(self, examples: np.ndarray) -> np.ndarray:
        return self.extract(examples)


class Labelled(NamedTuple):
    """Data to train a classifier on: uint8 images [N, H, W, C] and labels [N] of the data set called `name`."""

    name: str
    images: np.ndarray
    labels: np.ndarray


class Request(NamedTuple):
    """Which features. weights: path of the network's weights. resize: one of `resize.RULES`. labelled: the run's data,
    which the classifier learns. None takes what the features have."""

    name: str
    weights: str | None = None
    resize: str | None = None
    labelled: Labelled | None = None

    def refuse(self, *fields: str) -> None:
        """InputError if one of weights and resize was given to features that have none."""
        for field in fields:
            if (value := getattr(self, field)) is not None:
                raise InputError(f"{self.name} has no {field} to choose, and was given {value}: leave it out")
