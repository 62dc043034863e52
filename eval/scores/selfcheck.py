"""Calibrates distances: real examples against other real ones, and against damaged ones."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.ndimage

from eval.features.interface import Features
from eval.scores.kernel import KernelDistance, kernel_distance
from eval.scores.measure import Sample
from eval.scores.real import Examples

NOISE = (5, 10)  # standard deviations, grey levels
BLUR = (0.4, 0.8)  # standard deviations, pixels


class Comparison(NamedTuple):
    """Two sets of examples: their description, sizes, Fréchet distance and kernel distance."""

    what: str
    counts: tuple[int, int]
    distance: float
    kernel: KernelDistance


def compare(train: Examples, test: Examples | None, features: Features) -> Iterator[Comparison]:
    """Compares one half of the train examples with the other, all of them with the test examples, and, for images,
    with damaged test examples.

    train, test: in random order. Without test, the two halves of train take the places of train and test.
    """
    if test is None:
        middle = -(-len(train) // 2)
        train, test = train[:middle], train[middle:]
        ours, name = Sample.of(train.chunks(), features), "one half, the other half"
    else:
        ours, name = Sample.of(train.chunks(), features), "train, test"
        first, second = ours.halves()
        counts = (len(train[0::2]), len(train[1::2]))
        kernel = kernel_distance(ours.kept()[0::2], ours.kept()[1::2])
        yield Comparison("train, halves", counts, first.distance(second), kernel)
    real = ours.gaussian()

    def against(what: str, damage: Callable[[np.ndarray], np.ndarray] = lambda images: images) -> Comparison:
        theirs = Sample.of(map(damage, test.chunks()), features)
        kernel = kernel_distance(ours.kept(), theirs.kept())
        return Comparison(what, (len(train), len(test)), real.distance(theirs.gaussian()), kernel)

    yield against(name)
    if test[:1].read().ndim == 4:
        for sigma in NOISE:
            noisy = functools.partial(add_noise, np.random.default_rng(0), sigma)
            yield against(f"{name} with noise of {sigma} grey levels", noisy)
        for sigma in BLUR:
            yield against(f"{name} blurred by {sigma} pixels", functools.partial(blur, sigma))


def add_noise(rng: np.random.Generator, sigma: float, images: np.ndarray) -> np.ndarray:
    """Adds normal noise of `sigma` grey levels to every channel of uint8 [N, H, W, C]."""
    noise = rng.standard_normal(images.shape, np.float32)
    return np.clip(np.round(images + sigma * noise), 0, 255).astype(np.uint8)


def blur(sigma: float, images: np.ndarray) -> np.ndarray:
    """Blurs uint8 [N, H, W, C] with a Gaussian filter of `sigma` pixels."""
    smooth = scipy.ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0))
    return np.clip(np.round(smooth), 0, 255).astype(np.uint8)
