"""Recognises the networks in files of other projects and makes them parameters of `song_unet`.

By keys and shapes alone: MeanFlow's and SoFlow's networks of two times, and EDM's denoiser. docs/weights.md lists the
layouts.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from sgflow_jax import models
from sgflow_jax.interfaces import MAX_SEED, InputError
from sgflow_jax.models import song_names
from sgflow_jax.models.edm import SIGMA_DATA
from sgflow_jax.models.song_unet import FILTERS
from sgflow_jax.weights.tensor_file import TensorFile
from sgflow_jax.weights.torch_file import TorchFile

NETWORK = "song_unet"
AVERAGES = ("net_ema1", "net_ema", "ema_model", "ema")  # names of averaged networks; the first in a file is taken
RAW = ("net", "model")  # names of the last parameters
SUPPORTED = "use a file that docs/weights.md describes"
_FIRST = re.compile(r"((?:.*[./])?)enc\.(\d+)x\2_conv\.weight", re.DOTALL)  # each network has one such key
_WRAPPERS = ("", "network.", "model.", "module.")  # prefixes that do not tell networks apart
_BESIDE = ("num_updates",)  # keys beside networks in a state dict that are not theirs
_MAX_BLOCKS = 64  # of a level: building so many layers would take minutes


class File(NamedTuple):
    """An open file of another project. shapes: of all arrays, by their names, in which "/" separates dictionaries and
    "." what is in a key. values: numbers and texts by name. read: copies of the arrays of these names."""

    path: str
    shapes: dict[str, tuple[int, ...]]
    values: dict[str, Any]
    read: Callable[[Iterable[str]], dict[str, np.ndarray]]


class Released(NamedTuple):
    """model: options of `models.make`, with the network's name. shape: of an image, (H, W, C). params, average: trees
    of float32 arrays, the same where the file has one network. step: the file's epoch, or 1. facts: what was
    recognised, for a record."""

    model: dict[str, Any]
    shape: tuple[int, int, int]
    params: dict
    average: dict
    step: int
    facts: dict[str, Any]

    @property
    def denoiser(self) -> bool:
        """Whether the network has a single time, as EDM's."""
        return self.model["preconditioning"] == "edm"


def of_torch(path: str, average: str | None, options: Mapping[str, Any]) -> Released:
    """The network in a PyTorch file, or a pickle of EDM. average, options: see `recognised`."""
    with TorchFile(path) as file:
        tensors, values = file.flattened()
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        read = lambda names: file.arrays({name: tensors[name] for name in names})  # noqa: E731
        return recognised(File(path, shapes, values, read), average, options)


def of_tensors(path: str, file: TensorFile, average: str | None, options: Mapping[str, Any]) -> Released:
    """The network in a file of safetensors with PyTorch's keys. average, options: see `recognised`."""
    read = lambda names: {name: file.array(name) for name in names}  # noqa: E731
    return recognised(File(path, file.shapes, {}, read), average, options)


def recognised(file: File, average: str | None, options: Mapping[str, Any]) -> Released:
    """The networks of a file.

    average: the name of the network that becomes the averaged parameters; None: the first of AVERAGES, or the only one.
    options: those of `song_unet` that a file does not tell, like dropout.
    InputError, with the first array at fault, for a file without such a network, or one that differs in any way.
    """
    found = networks(file)
    chosen = _chosen(file, found, average)
    raw = next((name for name in RAW if name in found), chosen)
    _check_beside(file, found)
    model, shape, tree = _network(file, found[chosen], options)
    params = tree
    if raw != chosen:
        other, _, params = _network(file, found[raw], options)
        if other != model:
            raise InputError(f"{file.path} has networks of different sizes, {raw} and {chosen}: {SUPPORTED}")
    number = file.values.get("epoch", 1)
    step = number if type(number) is int and 1 <= number <= MAX_SEED else 1
    facts = {"networks": sorted(found), "average": found[chosen], "raw": found[raw]}
    return Released(model, shape, params, tree, step, facts)


def networks(file: File) -> dict[str, str]:
    """The prefixes of the keys of each network in a file, by a name: model/net_ema1. is net_ema1."""
    prefixes = [found[1] for name in file.shapes if (found := _FIRST.fullmatch(name))]
    if not prefixes:
        some = next(iter(file.shapes), None)
        had = f"its first array is {some!r:.80}" if some is not None else "it has no arrays"
        raise InputError(f"{file.path} has no network that is known here ({had}): {SUPPORTED}")
    names = {}
    for prefix in prefixes:
        *outer, inner = prefix.split("/")
        names[prefix] = outer[-1] if outer and inner in _WRAPPERS else inner.rstrip(".") or "model"
    if len(set(names.values())) < len(names):
        names = {prefix: prefix.rstrip("./") for prefix in prefixes}
    return {name: prefix for prefix, name in names.items()}


def _chosen(file: File, found: dict[str, str], average: str | None) -> str:
    listed = ", ".join(sorted(found))
    if average is not None:
        if average not in found:
            raise InputError(f"--average={average} is not in {file.path}: use one of {listed}")
        return average
    known = [name for name in AVERAGES if name in found] or list(found)
    if len(known) > 1 and known[0] not in AVERAGES:
        raise InputError(f"{file.path} has several networks, {listed}: choose one with --average={known[0]}")
    return known[0]


def _check_beside(file: File, found: dict[str, str]) -> None:
    """InputError for an array in the same dictionary as a network that belongs to none."""
    dictionaries = {prefix.rpartition("/")[0] for prefix in found.values()}
    prefixes = tuple(found.values())
    for name in file.shapes:
        place, _, key = name.rpartition("/")
        if place in dictionaries and not name.startswith(prefixes) and key not in _BESIDE:
            raise InputError(f"{file.path} has the unknown array {name!r:.80} beside its network: {SUPPORTED}")


def _network(file: File, prefix: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, int, int], dict]:
    """The options, the shape of an image, and the parameters of the network whose keys begin with a prefix."""
    arrays = file.read([name for name in file.shapes if name.startswith(prefix)])
    arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    try:
        found, shape = song_names.options({key: array.shape for key, array in arrays.items()})
        if found["num_blocks"] > _MAX_BLOCKS:
            raise InputError(f"it has {found['num_blocks']} blocks in a level")
        model = {"name": NETWORK, **models.default_options(NETWORK), **options, **found}
        share = file.values.get(f"{prefix}label_dropout")
        if model["num_classes"] and isinstance(share, float) and 0 < share < 1:
            model["label_dropout"] = share
        made = models.make(**model)
        made.check(shape)
        if model["preconditioning"] == "edm":
            _check_denoiser(file.values, prefix.rpartition("/")[0])
        _check_filters(arrays, FILTERS[model["preconditioning"]])
        arrays = {key: a for key, a in arrays.items() if key.rpartition(".")[2] != song_names.BUFFER}
        _check_arrays(arrays, dict(song_names.key(*item) for item in shapes(made, shape).items()))
    except InputError as error:
        where = f" {prefix!r:.60}" if prefix else ""
        raise InputError(f"{file.path} has a network{where} that song_unet cannot be, {error}: {SUPPORTED}") from error
    tree = song_names.parameters(arrays, interleaved=model["preconditioning"] == "edm")
    return model, shape, jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), tree)


def _check_denoiser(values: dict[str, Any], place: str) -> None:
    """InputError if a pickle says that the denoiser around the network is not the one that `edm.velocity` has."""
    name, deviation = values.get(f"{place}/class_name", "EDMPrecond"), values.get(f"{place}/sigma_data", SIGMA_DATA)
    if (name, deviation) != ("EDMPrecond", SIGMA_DATA):
        raise InputError(f"a {name!r:.40} with sigma_data {deviation!r:.20}, not EDMPrecond with {SIGMA_DATA}")


def _check_filters(arrays: Mapping[str, np.ndarray], taps: tuple[int, ...]) -> None:
    """InputError if the network resamples with another filter."""
    right = np.outer(taps, taps) / sum(taps) ** 2
    for key, array in arrays.items():
        same = array.shape == (1, 1, *right.shape) and np.allclose(array, right, rtol=1e-5)
        if key.rpartition(".")[2] == song_names.BUFFER and not same:
            raise InputError(f"{key} is another filter than {taps}")


def _check_arrays(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """InputError for the first array that is missing, unknown, of another shape, or not of finite numbers."""
    if missing := next((key for key in expected if key not in arrays), None):
        raise InputError(f"the array {missing} is missing")
    for key, array in arrays.items():
        if key not in expected:
            raise InputError(f"the array {key!r:.80} is unknown")
        if array.shape != expected[key]:
            raise InputError(f"the array {key} has the shape {array.shape}, not {expected[key]}")
        if array.dtype.kind != "f":
            raise InputError(f"the array {key} has the type {array.dtype}, not one of floating point")
        if not np.all(np.isfinite(array)):
            raise InputError(f"the array {key} has NaN or infinity")


@functools.lru_cache(maxsize=4)  # the networks of a file are alike
def shapes(model: nn.Module, shape: tuple[int, ...]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The shapes of the parameters of a network for examples of `shape`, by their paths. Allocates nothing."""
    t, x, label = jnp.zeros(1), jnp.zeros((1, *shape)), jnp.zeros(1, jnp.int32)
    tree = jax.eval_shape(lambda key: model.init(key, t, t, x, label), jax.random.key(0))["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}
