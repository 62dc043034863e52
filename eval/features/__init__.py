"""Features of examples behind one interface: features(examples) -> float32 [N, D]."""

from collections.abc import Callable

import numpy as np

from eval.features import pixels
from sgflow_jax.interfaces import InputError

Features = Callable[[np.ndarray], np.ndarray]

_FEATURES: dict[str, Callable[[str | None], Features]] = {"pixels": pixels.make}


def names() -> tuple[str, ...]:
    """Every kind of features."""
    return tuple(_FEATURES)


def make(name: str, weights: str | None = None) -> Features:
    """Features of uint8 images [N, H, W, C] (or float32 points [N, D]) as float32 [N, D].

    weights: path of the network's weights, for those that have one. InputError for an unknown name.
    """
    if name not in _FEATURES:
        raise InputError(f"unknown features {name!r}: use one of {', '.join(_FEATURES)}")
    return _FEATURES[name](weights)
