"""Features of a small convolutional classifier trained on the run's own labelled data; used for digits.

It is cached by data set and seed. Its distances are comparable only between runs measured with the same weights, whose
hash is in every row.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jax.experimental import multihost_utils

from eval.features import weights
from eval.features.interface import Features, Labelled, Request
from eval.features.network import Network
from eval.scores import progress
from sgflow_jax import data, terminal
from sgflow_jax.data import fingerprint
from sgflow_jax.devices import processes, sharding
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

SEED = 0
BATCH = 128
LEARNING_RATE = 2e-3
HELD_OUT = 10  # every HELD_OUT-th image is left out of training, as test data


class Quick(nn.Module):
    """Strided convolutions, for any size. images [B, H, W, C] in [-1, 1] -> features [B, 64], logits [B, classes]."""

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)

    @nn.compact
    def __call__(self, x):
        for width in self.widths:
            x = nn.swish(nn.Conv(width, (3, 3))(x))
            x = nn.swish(nn.Conv(width, (3, 3), strides=2)(x))
        features = nn.swish(nn.Dense(64)(x.mean(axis=(1, 2))))
        return features, nn.Dense(self.classes, name="head")(features)


class Thorough(nn.Module):
    """Convolutions at full resolution, for small images. Shapes as in `Quick`."""

    classes: int
    widths: tuple[tuple[int, ...], ...] = ((32, 48), (96, 96), (192,))

    @nn.compact
    def __call__(self, x):
        for level, widths in enumerate(self.widths):
            if level:
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for width in widths:
                x = nn.swish(nn.GroupNorm(8)(nn.Conv(width, (3, 3))(x)))
        features = nn.swish(nn.Dense(64)(x.mean(axis=(1, 2))))
        return features, nn.Dense(self.classes, name="head")(features)


class Recipe(NamedTuple):
    """A network, made for a number of classes, and its training. number: change it with every change of either, so that
    cached classifiers are trained again. flip: mirror images left to right at random."""

    number: int
    network: Callable[[int], nn.Module]
    steps: int
    flip: bool


QUICK = Recipe(1, Quick, 600, flip=False)
# Natural images need more than digits do: on CIFAR-10 at 8x8 the quick recipe classifies too few test images.
THOROUGH = Recipe(2, Thorough, 5_000, flip=True)
_THOROUGH_SIZE, _THOROUGH_COUNT = 16, 10_000  # at most so many pixels a side, at least so many images


def recipe_of(labelled: Labelled) -> Recipe:
    """THOROUGH for many small colour images, QUICK for all others."""
    count, *size, channels = labelled.images.shape
    small = max(size) <= _THOROUGH_SIZE and count >= _THOROUGH_COUNT
    return THOROUGH if channels == 3 and small else QUICK


def make(request: Request) -> Features:
    """Trains the classifier on request.labelled, or reads it from the cache; InputError without labelled data."""
    request.reject("weights", "resize")
    if request.labelled is None:
        raise InputError(f"{request.name} needs labelled images: use other features for data without labels")
    params = _restore_or_train(request.labelled)
    model = _model(request.labelled)

    def classify(features):
        head = params["params"]["head"]
        return np.argmax(features @ head["kernel"] + head["bias"], axis=1)

    def apply(params, images):
        return model.apply(params, data.to_float(images))[0]

    network = Network(apply, params, batch_size=500)
    return Features(request.name, network, _hash(params), classify=classify, classes=model.classes)


def _model(labelled: Labelled) -> nn.Module:
    return recipe_of(labelled).network(labelled.classes)


def _restore_or_train(labelled: Labelled) -> dict:
    """The parameters, equal on every process."""
    file = _file(labelled)
    model = _model(labelled)
    fresh = jax.tree.map(np.asarray, _init(model, labelled.images.shape[1:]))
    params = processes.on_first(lambda: _read(file, fresh))
    if not processes.from_process(params is not None):
        params = jax.tree.map(np.asarray, _train(model, labelled))
        try:
            if jax.process_index() == 0:
                disk.write_arrays(file, traverse_util.flatten_dict(params, sep="/"))
        except InputError as error:  # the trained classifier can still be used
            terminal.say(f"warning: the classifier was not cached: {error}", to_stderr=True)
    # Caches differ between hosts.
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(fresh if params is None else params))


def _read(file: Path, like: dict) -> dict | None:
    """The cached parameters; None if there are none or they are damaged."""
    try:
        params = traverse_util.unflatten_dict(weights.read(file), sep="/")
    except InputError:
        return None
    shapes = functools.partial(jax.tree.map, lambda a: (a.shape, a.dtype))
    return params if shapes(params) == shapes(like) else None


def _init(model: nn.Module, shape: tuple[int, ...]) -> dict:
    return jax.jit(model.init)(jax.random.key(SEED), jnp.zeros((1, *shape[:2], 3)))


def _file(labelled: Labelled) -> Path:
    of = fingerprint.of_arrays(labelled.images, labelled.labels)
    number = recipe_of(labelled).number
    return disk.cache() / "classifiers" / f"{labelled.name}-{of}-seed{SEED}-recipe{number}.npz"


def _hash(params: dict) -> str:
    flat = traverse_util.flatten_dict(params, sep="/")
    return fingerprint.of_arrays(*(flat[name] for name in sorted(flat)))


def _train(model: nn.Module, labelled: Labelled) -> dict:
    recipe = recipe_of(labelled)
    kept = np.arange(len(labelled.images)) % HELD_OUT > 0
    images, labels = labelled.images[kept], labelled.labels[kept]
    images = np.broadcast_to(images, (*images.shape[:3], 3))  # as `Network` does
    params = _init(model, images.shape[1:])
    optimiser = optax.adamw(optax.cosine_decay_schedule(LEARNING_RATE, recipe.steps), weight_decay=0.05)

    def loss(params, x, label):
        logits = model.apply(params, data.to_float(x))[1]
        smoothed = optax.smooth_labels(jax.nn.one_hot(label, model.classes), 0.1)
        return optax.softmax_cross_entropy(logits, smoothed).mean()

    @functools.partial(jax.jit, donate_argnums=sharding.donated(0, 1))
    def step(params, state, x, label):
        with jax.default_matmul_precision("highest"):  # as `Network` does
            gradient = jax.grad(loss)(params, x, label)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    rng = np.random.default_rng(SEED)
    steps = recipe.steps
    for _ in progress.track(range(steps), f"training the classifier of {labelled.name}", steps, "steps"):
        chosen = rng.integers(len(images), size=BATCH)
        batch = _shifted(rng, images[chosen])
        if recipe.flip:
            mirrored = rng.random(len(batch)) < 0.5
            batch[mirrored] = batch[mirrored, :, ::-1]
        params, state = step(params, state, batch, labels[chosen])
    return params


def _shifted(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Shifts each image by up to one pixel in each direction, repeating edges. Without it the classifier memorises the
    training images, and their features differ from those of all other images."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    top, left = rng.integers(3, size=(2, len(images), 1))
    rows, columns = top + np.arange(height), left + np.arange(width)
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
