"""Converts PyTorch weights to Flax parameters, folding each batch norm into its convolution."""

from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from sgflow_jax.interfaces import InputError
from sgflow_jax.weights import torch_file

BATCH_NORM_EPS = 1e-3  # TensorFlow's: both sets of weights come from there


def read(path: Path) -> dict[str, np.ndarray]:
    """Arrays by PyTorch key, from an .npz or a PyTorch file. InputError for an unreadable file."""
    if path.suffix != ".npz":
        return torch_file.read(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: check the path") from error
    except Exception as error:  # a damaged archive may raise any exception
        raise InputError(
            f"{path} is damaged or not an .npz of plain arrays ({type(error).__name__}): download it again"
        ) from error


def convert(
    model: nn.Module, size: int, arrays: Mapping[str, np.ndarray], names: Callable[[str], tuple[str, str]], unused: str
) -> dict:
    """Parameters of `model` for images [1, size, size, 3]; all its layers must be convolutions with a bias.

    A 1 x 1 convolution may be a dense layer. names: maps a module's dotted path to the PyTorch key prefixes of its
    convolution and batch norm. unused: prefix of the keys the model does not use. InputError for missing or unexpected
    keys, wrong shapes, and values that are not finite.
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
    """Kernel [height, width, in, out] and bias [out], float32, of a convolution with its batch norm."""
    get = lambda key: np.asarray(arrays[key], np.float64)  # noqa: E731
    scale = get(f"{norm}.weight") / np.sqrt(get(f"{norm}.running_var") + BATCH_NORM_EPS)
    kernel = get(f"{conv}.weight").transpose(2, 3, 1, 0) * scale
    bias = get(f"{norm}.bias") - get(f"{norm}.running_mean") * scale
    return kernel.astype(np.float32), bias.astype(np.float32)


def _check(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], unused: str) -> None:
    """InputError with the first bad key and the number of bad keys."""
    counted = {key for key in arrays if not key.startswith(unused) and not key.endswith(".num_batches_tracked")}
    floats = {key for key in counted if np.issubdtype(arrays[key].dtype, np.floating)}
    numbers = {key for key in floats if np.isfinite(arrays[key]).all()}
    faults = {
        "missing": [key for key in expected if key not in counted],
        "unexpected": sorted(counted - expected.keys()),
        "with the wrong shape": [key for key in expected if key in counted and arrays[key].shape != expected[key]],
        "with NaN or infinity": [key for key in expected if key not in numbers],
        "negative": [
            key for key in expected if key.endswith("running_var") and key in numbers and np.min(arrays[key]) < 0
        ],
    }
    for fault, keys in faults.items():
        if keys:
            raise InputError(f"weights {fault}: {keys[0]} ({len(keys)} in all): use the weights of this network")
