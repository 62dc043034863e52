"""The interface of all features: what is requested and what is returned."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sgflow_jax.interfaces import InputError


@dataclasses.dataclass(frozen=True)
class Features:
    """features(examples) -> float32 [N, D], with the identity that a distance between them must carry.

    extract: takes uint8 images [N, H, W, C] or float32 points [N, D]. weights: first 12 digits of the SHA-256 of the
    network's weights, "" for none. resize: rule by which images are resized, "" for none. classify: features [N, D] to
    labels [N] of `classes` classes; None if these features have no classifier.
    """

    name: str
    extract: Callable[[np.ndarray], np.ndarray]
    weights: str = ""
    resize: str = ""
    classify: Callable[[np.ndarray], np.ndarray] | None = None
    classes: int = 0

    def __call__(self, examples: np.ndarray) -> np.ndarray:
        return self.extract(examples)

    def dimension(self, shape: tuple[int, ...]) -> int:
        """D for examples of this shape, (H, W, C) or (D,). Evaluates one example."""
        return self.extract(np.zeros((1, *shape), np.uint8 if len(shape) == 3 else np.float32)).shape[1]


class Labelled(NamedTuple):
    """Training data of a classifier: uint8 images [N, H, W, C] and labels [N] of `classes` classes, from the data set
    called `name`."""

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: int


class Request(NamedTuple):
    """Requested features. weights: path of the network's weights. resize: one of `resize.RULES`. labelled: the run's
    data, for the classifier. None means the default."""

    name: str
    weights: str | None = None
    resize: str | None = None
    labelled: Labelled | None = None

    def reject(self, *options: str) -> None:
        """InputError if one of these options, which the features lack, was given."""
        for option in options:
            if (value := getattr(self, option)) is not None:
                raise InputError(f"{self.name} has no {option} to choose, but {value} was given: leave it out")
