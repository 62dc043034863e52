"""Compares generated images with their nearest training images in pixel space, to detect memorisation."""

from typing import NamedTuple

import numpy as np

from eval.page.runs import Run
from eval.scores import real
from eval.scores.manifold import squared_distances
from sgflow_jax import build, data
from sgflow_jax.interfaces import InputError

BLOCK = 1000  # training images in float64 at once
CLOSE = 0.5  # relative to the distance between training images; nearer images are copies or almost
COMPARED = 1000  # training images whose distance to the others is measured
MOST_BYTES = 2**28  # of training images in memory; larger sets are subsampled evenly


class Training(NamedTuple):
    """The training images. images: uint8 [N, H, W, C], all or as many as fit, with their mirror images if mirrored.
    held, total: the number held and in the data set, without mirror images. shares: share of each class [K]; [0] for
    unlabelled data. names: of the classes."""

    images: np.ndarray
    mirrored: bool
    held: int
    total: int
    shares: np.ndarray
    names: tuple[str, ...]


def training(runs: list[Run]) -> Training:
    """InputError, a sentence, if the images are missing or differ from those the runs were measured against."""
    name = runs[0].rows[0].identity.reference.data
    configs = [run.config for run in runs if run.config is not None]
    if data.of_points(name):
        raise InputError(f"{name} consists of points that are drawn anew for every batch, so there is nothing to copy")
    if not configs:
        raise InputError("no run has a config.json, which names the location of the training images")
    shape = data.shape(configs[0].data)
    source = build.source(configs[0])
    known = {row.identity.reference for run in runs for row in run.rows}
    if {reference.fingerprint for reference in known if reference.split == "train"} - {source.fingerprint}:
        raise InputError(f"the images of {name} here differ from those the runs were measured against")
    classes = len(source.classes)
    shares = np.bincount(source.labels, minlength=classes) / source.size if classes else np.zeros(0)
    mirrored = any(config.data.flip for config in configs)
    found = real.spread(source, MOST_BYTES // int(np.prod(shape)))
    images = np.concatenate(list(found.chunks()))
    both = np.concatenate([images, images[:, :, ::-1]]) if mirrored else images
    return Training(both, mirrored, len(found), source.size, shares, source.classes)


class Nearest(NamedTuple):
    """places: indices of training images [n, k], nearest first. distances: [n, k], root mean square over pixels."""

    places: np.ndarray
    distances: np.ndarray


def nearest(images: np.ndarray, training: np.ndarray, count: int, own: np.ndarray | None = None) -> Nearest:
    """The `count` training images nearest to each image: uint8 [n, H, W, C] and [N, H, W, C], N > count.

    own: [n], the index of each image itself among the training images, which is skipped.
    """
    wanted = _flat(images)
    places = np.empty((len(wanted), 0), int)
    squared = np.empty((len(wanted), 0))
    for start in range(0, len(training), BLOCK):
        block = _flat(training[start : start + BLOCK])
        here = start + np.arange(len(block))
        found = squared_distances(wanted, block)
        if own is not None:
            found[own[:, None] == here] = np.inf
        squared = np.concatenate([squared, found], axis=1)
        places = np.concatenate([places, np.broadcast_to(here, found.shape)], axis=1)
        kept = np.argsort(squared, axis=1, kind="stable")[:, :count]
        squared, places = (np.take_along_axis(array, kept, axis=1) for array in (squared, places))
    # Recomputed from the differences, because of cancellation: a copy has distance exactly 0.
    mean_sq = [np.mean((wanted - _flat(training[places[:, k]])) ** 2, axis=1) for k in range(count)]
    return Nearest(places, np.sqrt(np.stack(mean_sq, axis=1)))


def spread(training: np.ndarray) -> float:
    """The median distance from a training image to its nearest other one, over COMPARED evenly spaced images.

    InputError if it is 0: most images are duplicated, so distances are meaningless.
    """
    own = np.linspace(0, len(training) - 1, min(COMPARED, len(training))).astype(int)
    median = float(np.median(nearest(training[own], training, 1, own).distances))
    if median == 0:
        raise InputError(
            "most training images are duplicated, so distances cannot reveal copies: remove the duplicates"
        )
    return median


class Memorisation(NamedTuple):
    """Distances from generated images to the nearest training image, relative to the `spread` of training images.

    median: near 1 if both are equal. close: share of generated images nearer than CLOSE."""

    median: float
    close: float


def memorisation(images: np.ndarray, training: np.ndarray, typical: float) -> Memorisation:
    """typical: the `spread` of the training images."""
    relative = nearest(images, training, 1).distances[:, 0] / typical
    return Memorisation(float(np.median(relative)), float(np.mean(relative < CLOSE)))


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64)
