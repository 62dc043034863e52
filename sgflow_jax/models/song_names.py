"""The parameters of `song_unet.SongUNet` by the keys of released PyTorch files."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sgflow_jax.interfaces import InputError

BUFFER = "resample_filter"  # last part of a key of PyTorch that names no parameter: the filter follows from the options
# Name in PyTorch and number of dimensions -> name in Flax, and the axes of PyTorch in Flax's order.
_LEAVES = {
    ("weight", 4): ("kernel", (2, 3, 1, 0)),  # of a convolution: O, I, H, W -> H, W, I, O
    ("weight", 2): ("kernel", (1, 0)),  # of a dense layer: out, in -> in, out
    ("weight", 1): ("scale", (0,)),  # of a normalisation
    ("bias", 1): ("bias", (0,)),
}
# By the inputs of the first layer of the embedding, as a multiple of `channels`: one time has `channels` features, two
# have twice as many each.
_PRECONDITIONING = {1: "edm", 4: "none"}


def parameter(key: str, array: np.ndarray, interleaved: bool) -> tuple[tuple[str, ...], np.ndarray]:
    """The path in the tree of parameters, and the array in Flax's layout. InputError if no layer has such an array.

    The module is called as in PyTorch, with "enc." and "dec." joined to its name: enc.8x8_block0.conv0.weight is at
    ("enc_8x8_block0", "conv0", "kernel").

    interleaved: output channel 3 c + j of `qkv` is channel c of the query (j = 0), key (1) or value (2), as in EDM's
    files; otherwise, as in MeanFlow's and in the network here, the three follow one another.
    """
    *modules, leaf = key.split(".")
    if (leaf, array.ndim) not in _LEAVES or not modules or not all(modules):
        raise InputError(f"no parameter of song_unet is called {key} with {array.ndim} dimensions: use another file")
    if modules[0] in ("enc", "dec"):
        modules = ["_".join(modules[:2]), *modules[2:]]
    if modules[-1] == "qkv" and interleaved:
        array = array.reshape(-1, 3, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
    name, axes = _LEAVES[leaf, array.ndim]
    return (*modules, name), array.transpose(axes)


def key(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The inverse of `parameter`: the key in PyTorch, and the shape there, of the parameter at a path in the tree."""
    *modules, name = path
    leaf, axes = next((leaf, axes) for (leaf, n), (ours, axes) in _LEAVES.items() if ours == name and n == len(shape))
    first, *rest = modules
    if (part := first.partition("_"))[0] in ("enc", "dec"):
        first = ".".join(part[::2])
    return ".".join([first, *rest, leaf]), tuple(int(shape[axes.index(axis)]) for axis in range(len(axes)))


def parameters(arrays: Mapping[str, np.ndarray], interleaved: bool) -> dict:
    """The tree of parameters from all arrays of a network by their keys in PyTorch, see `parameter`. Leaves out
    buffers."""
    tree: dict = {}
    for key, array in arrays.items():
        if key.rpartition(".")[2] != BUFFER:
            (*modules, name), value = parameter(key, array, interleaved)
            place = tree
            for module in modules:
                place = place.setdefault(module, {})
            place[name] = value
    return tree


def options(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """The options of `song_unet` that follow from the shapes of a network's arrays by their keys in PyTorch, and the
    shape (H, W, C) of its images. InputError if none follow.

    A network of one time is taken to be EDM's denoiser. What follows need not be right: compare all shapes.
    """

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        if key not in shapes:
            raise InputError(f"the array {key} is missing")
        if len(shapes[key]) != dimensions or 0 in shapes[key]:
            raise InputError(f"the array {key} has the shape {shapes[key]}")
        return shapes[key]

    def inputs(key: str) -> int:
        """Of a dense layer; 0 if there is none."""
        return shape(f"{key}.weight", 2)[1] if f"{key}.weight" in shapes else 0

    blocks = [(int(n[1]), n[2]) for key in shapes if (n := re.fullmatch(r"enc\.(\d{1,5})x\1_(.+?)\.weight", key))]
    sizes = sorted({size for size, _ in blocks}, reverse=True)
    if not sizes:
        raise InputError("it has no layers of an encoder")
    size = sizes[0]
    channels, colours = shape(f"enc.{size}x{size}_conv.weight", 4)[:2]
    widths = [shape(f"enc.{size}x{size}_block0.conv0.weight", 4)[0] for size in sizes]
    times, rest = divmod(shape("map_layer0.weight", 2)[1], channels)
    if any(width % channels for width in widths) or rest or times not in _PRECONDITIONING:
        raise InputError(f"its levels have {widths} channels and its times {times * channels + rest}")
    found = {
        "channels": channels,
        "channel_mult": tuple(width // channels for width in widths),
        "num_blocks": len({name for at, name in blocks if at == size and re.fullmatch(r"block\d+\.conv0", name)}),
        "attention_sizes": tuple(at for at in sizes if (at, "block0.qkv") in blocks),
        "augment_dim": inputs("map_augment"),
        "num_classes": inputs("map_label"),
        "preconditioning": _PRECONDITIONING[times],
        "time_scale": 1.0,
    }
    return found, (size, size, colours)
