"""The parameters of `song_unet.SongUNet` by the keys of released PyTorch files."""

from collections.abc import Mapping

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
