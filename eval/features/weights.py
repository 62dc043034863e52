"""Weights of PyTorch networks as parameters of Flax ones, every batch norm folded into its convolution."""

from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from eval.features import torch_file
from sgflow_jax.interfaces import InputError

BATCH_NORM_EPS = 1e-3  # of TensorFlow's networks, from which both sets of weights come


def read(path: Path) -> dict[str, np.ndarray]:
    """Arrays by PyTorch key, from a .npz or a file of PyTorch. InputError for a file that cannot be read."""
    if path.suffix != ".npz":
        return torch_file.read(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: check the path") from error
    except Exception as error:  # damaged archives raise almost any
        raise InputError(
            f"{path} is no .npz of plain arrays, or damaged ({type(error).__name__}): get it again"
        ) from error


def convert(
    model: nn.Module, size: int, arrays: Mapping[str, np.ndarray], names: Callable[[str], tuple[str, str]], unused: str
) -> dict:
    """Parameters of `model`, all of whose layers are convolutions with a bias, for images [1, size, size, 3].

    A convolution of 1 x 1 may be a dense layer. names: prefixes of the PyTorch keys of a convolution and of its batch
    norm, from the dotted path of the module. unused: prefix of the keys that the model leaves out. InputError for
    missing or unexpected keys and for wrong shapes.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))["params"]
    kernels = {path[:-1]: leaf for path, leaf in traverse_util.flatten_dict(shapes).items() if path[-1] == "kernel"}
    prefixes = {path: names(".".join(path)) for path in kernels}

    expected = {}
    for path, (conv, norm) in prefixes.items():
        height, width, inputs, outputs = (1,) * (4 - kernels[path].ndim) + kernels[path].shape
        expected[f"{conv}.weight"] = (outputs, inputs, height, width)
        expected |= {f"{norm}.{name}": (outputs,) for name in ("weight", "bias", "running_mean", "running_var")}
    _check(arrays, expected, unused)

    params = {}
    for path, prefix in prefixes.items():
        kernel, bias = fold_batch_norm(arrays, *prefix)
        params |= {(*path, "kernel"): kernel.reshape(kernels[path].shape), (*path, "bias"): bias}
    return traverse_util.unflatten_dict(params)


def fold_batch_norm(arrays: Mapping[str, np.ndarray], conv: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [height, width, in, out] and bias [out], float32, of a convolution followed by a batch norm."""
    get = lambda key: np.asarray(arrays[key], np.float64)  # noqa: E731
    scale = get(f"{norm}.weight") / np.sqrt(get(f"{norm}.running_var") + BATCH_NORM_EPS)
    kernel = get(f"{conv}.weight").transpose(2, 3, 1, 0) * scale
    bias = get(f"{norm}.bias") - get(f"{norm}.running_mean") * scale
    return kernel.astype(np.float32), bias.astype(np.float32)


def _check(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], unused: str) -> None:
    """InputError naming the first key at fault and how many there are."""
    counted = {key for key in arrays if not key.startswith(unused) and not key.endswith(".num_batches_tracked")}
    floats = {key for key in counted if np.issubdtype(arrays[key].dtype, np.floating)}
    numbers = {key for key in floats if np.isfinite(arrays[key]).all()}
    faults = {
        "missing": [key for key in expected if key not in counted],
        "unexpected": sorted(counted - expected.keys()),
        "of another shape": [key for key in expected if key in counted and arrays[key].shape != expected[key]],
        "not finite numbers": [key for key in expected if key not in numbers],
        "negative": [
            key for key in expected if key.endswith("running_var") and key in numbers and np.min(arrays[key]) < 0
        ],
    }
    for fault, keys in faults.items():
        if keys:
            raise InputError(f"weights {fault}: {keys[0]} ({len(keys)} in all): use the weights of this network")
