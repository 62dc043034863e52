"""The network song_unet with weights made by a rule from PyTorch's keys, as in the golden files."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from sgflow_jax import models
from sgflow_jax.models import song_names


def make(**options):
    return models.make(**{**base.song_unet().to_dict(), **options})


def shapes(model, shape):
    t, x = jnp.zeros(1), jnp.zeros((1, *shape))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), t, t, x, jnp.zeros(1, jnp.int32)))["params"]


def torch_name(path, value):
    """PyTorch's key and shape of a parameter: the inverse of `song_names.parameter`."""
    *modules, leaf = (part.key for part in path)
    key = ".".join([*modules, "bias" if leaf == "bias" else "weight"])
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
    return key.replace("enc_", "enc.", 1).replace("dec_", "dec.", 1), tuple(value.shape[axis] for axis in axes)


def arrays_by_rule(model, shape, prefix=""):
    """Every array by its key in PyTorch, seeded by that key after the prefix."""
    arrays = {}
    for path, value in jax.tree_util.tree_leaves_with_path(shapes(model, shape)):
        key, torch_shape = torch_name(path, value)
        z = np.random.default_rng(zlib.crc32((prefix + key).encode())).standard_normal(torch_shape)
        if "norm" in key:
            z = 1 + 0.1 * z if key.endswith("weight") else 0.1 * z
        elif key.endswith("bias"):
            z = 0.05 * z
        else:
            z = z * np.sqrt(1 / np.prod(torch_shape[1:]))
        arrays[key] = z.astype(np.float32)
    return arrays


SMALLEST = dict(channels=4, channel_mult=(1,), num_blocks=1, attention_sizes=())
SMALLEST_SHAPE = (8, 8, 1)  # of an image of it


def smallest(prefix="", preconditioning="none", **options):
    """The state dict in PyTorch of a network of a few arrays, whose values follow from the prefix of its keys."""
    model = make(**{**SMALLEST, **options}, preconditioning=preconditioning)
    return {f"{prefix}{key}": a for key, a in arrays_by_rule(model, SMALLEST_SHAPE, prefix).items()}


def net_by_rule(model, shape, prefix="", interleaved=False):
    return models.BoundNet(model, song_names.parameters(arrays_by_rule(model, shape, prefix), interleaved))


def distance(found, expected):
    """Relative L2."""
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / np.linalg.norm(expected)
