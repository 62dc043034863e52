"""The examples themselves as features: pixels scaled to [-1, 1], or the coordinates of points."""

import numpy as np

from eval.features.interface import Features, Request


def make(request: Request) -> Features:
    """Makes the features; InputError if weights or a resize are given."""
    request.reject("weights", "resize")
    return Features(request.name, pixels)


def pixels(examples: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] -> float32 [N, H W C] in [-1, 1]; float32 points [N, D] as they are."""
    flat = examples.reshape(len(examples), -1).astype(np.float32)
    return flat / 127.5 - 1 if examples.dtype == np.uint8 else flat
