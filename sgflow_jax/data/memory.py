"""Data sets of images that fit in memory."""

import dataclasses
import functools
from typing import Any

import numpy as np

from sgflow_jax.data import fingerprint, pictures, prepared
from sgflow_jax.data.source import ORDER, Request, Stepwise, half_mirrored, identity_of

CIFAR10_SHAPE = (32, 32, 3)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS_CLASSES = tuple("0123456789")


@dataclasses.dataclass(frozen=True, eq=False)
class Images(Stepwise):
    """Images in memory: images uint8 [N, H, W, C], labels int32 [N]. classes: the names of the labels; () without
    labels. known_fingerprint: where it was computed before. Each epoch is a permutation of all."""

    images: np.ndarray
    labels: np.ndarray
    flip: bool
    name: str = ""
    split: str = "train"
    classes: tuple[str, ...] = ()
    known_fingerprint: str = ""

    @property
    def size(self) -> int:
        return len(self.images)

    def batch(self, seed, step, batch_size, rows):
        epochs, places = np.divmod(step * batch_size + np.arange(batch_size)[rows], self.size)
        index = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            index[here] = _permutation(seed, int(epoch), self.size)[places[here]]

        x = self.images[index]
        if self.flip:
            x = half_mirrored(x, seed, step, batch_size, rows)
        return {"x": x, "label": self.labels[index]}

    def read(self, indices):
        return self.images[indices]

    def identity(self) -> dict[str, Any]:
        return identity_of(self)

    @functools.cached_property
    def fingerprint(self) -> str:
        return self.known_fingerprint or fingerprint.of_examples(self)


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([ORDER, seed, epoch]).permutation(n)


def digits(request: Request) -> Images:
    """All 8x8 digits of scikit-learn."""
    from sklearn.datasets import load_digits  # takes a second to import, which only digits need

    found = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)[..., None]
    return _in_memory(images, found.target.astype(np.int32), DIGITS_CLASSES, request)


def cifar10(request: Request) -> Images:
    """CIFAR-10 as prepared by TFDS; InputError if it is not prepared, or its images or labels are not CIFAR-10's."""
    found = prepared.open_split(request.name, "cifar10", request.split, request.data_dir)
    examples = found.examples(range(len(found)))
    images = found.images(examples, range(len(examples)), CIFAR10_SHAPE)
    labels = found.labels(examples, len(CIFAR10_CLASSES))
    return _in_memory(images, labels, CIFAR10_CLASSES, request)


def _in_memory(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], request: Request) -> Images:
    """The images in the requested size and number of channels."""
    fitted = pictures.fitted(images, request.size or images.shape[1], request.channels or images.shape[3])
    return Images(fitted, labels, request.flip, request.name, request.split, classes)
