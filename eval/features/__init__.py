"""Features of examples behind one interface: features(examples) -> float32 [N, D].

The features called NAME in `sgflow_jax.config.fields.FEATURES` are made by make(Request) in eval/features/NAME.py.
"""

import importlib

from absl import flags

from eval.features import inception, resize
from eval.features.interface import Features, Labelled, Request
from sgflow_jax import cli
from sgflow_jax.config import fields
from sgflow_jax.interfaces import InputError


def names() -> tuple[str, ...]:
    """Every kind of features."""
    return fields.FEATURES


def make(
    name: str, weights: str | None = None, resize: str | None = None, labelled: Labelled | None = None
) -> Features:
    """Features of uint8 images [N, H, W, C] (for pixels also of float32 points [N, D]) as float32 [N, D].

    weights: a file of Inception's weights, .pth or .npz with PyTorch's keys; by default the public file, downloaded
    once. resize: Inception's resize, one of `resize.RULES`; `inception.RULE` by default. labelled: the classifier's
    training data. InputError for an unknown name or an option that these features lack.
    """
    if name not in names():
        raise InputError(f"unknown features {name!r}: use one of {', '.join(names())}")
    return importlib.import_module(f"eval.features.{name}").make(Request(name, weights, resize, labelled))


def rules(items: list[str] | None) -> tuple[str | None, ...]:
    """The rules that --resize lists, without repeats; (None,) for the default. InputError for an unknown one."""
    if items is None:
        return (None,)
    if not items or set(items) - set(resize.RULES):
        raise InputError(f"--resize={','.join(items)}: use {' or '.join(resize.RULES)}, or both with a comma")
    return tuple(dict.fromkeys(items))


def distance_name(name: str, weights: str, rule: str) -> str:
    """The name of the Fréchet distance in features; weights and rule: as in `Features`.

    "FID" is reserved for Inception with the public weights and the resize of published FIDs; another resize is named.
    """
    if name == "inception":
        distance = "FID" if inception.SHA256.startswith(weights) else f"FD-Inception (weights {weights})"
        return distance if rule == inception.RULE else f"{distance} ({rule.replace('_', '-')})"
    return {"efficientnet_lite0": "FD-EfficientNet"}.get(name, f"FD-{name}")


def define_flags(default: str | None = None) -> None:
    """Defines the flags that choose features. default: without one, those of a run's configuration."""
    what = "Features of the distance" + "; by default the run's eval.features" * (default is None)
    flags.DEFINE_enum("features", default, names(), f"{what}.")
    cli.define_path("inception_weights", None, "File of Inception's weights, .pth or .npz; by default downloaded.")
    flags.DEFINE_list(
        "resize",
        None,
        f"Inception's resize, {' or '.join(resize.RULES)}, or both; by default {inception.RULE}, as in published FIDs.",
    )
