"""The objectives and options that audits and tables compare, named like `esd(stopgrad=none)`."""

import dataclasses
import re
from typing import Any

import ml_collections

from sgflow_jax import objectives
from sgflow_jax.interfaces import InputError
from sgflow_jax.objectives.base import Objective
from sgflow_jax.times import Domain

TRAINED = 10**9  # a training step after every warm-up and schedule
# Non-default option values, for every objective that accepts them.
_EVERYWHERE = [{"velocity_target": "batch"}, {"direction": "both"}, {"weight": "residual"}]
# Option values of single objectives.
_OWN = {
    "sgflow": [{"estimator": "split"}, {"correction": 0.3}, {"correction": 0.0}],
    "esd": [{"stopgrad": "full"}, {"stopgrad": "none"}],
    "lsd": [{"stopgrad": "none"}],
    "psd": [{"split": "uniform"}, {"stopgrad": "none"}],
    "consistency": [{"continuous": True}],
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """An objective with some options set."""

    objective: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """`objective`, or `objective(option=value,...)`."""
        inside = ",".join(f"{key}={value}" for key, value in self.options)
        return f"{self.objective}({inside})" if inside else self.objective

    def make(self, **more: Any) -> Objective:
        """The objective, with `more` options."""
        return objectives.make(self.objective, **{**dict(self.options), **more})

    def apply(self, config: ml_collections.ConfigDict) -> None:
        """Sets these options in a configuration of the same objective."""
        config.objective.update(dict(self.options))


def own() -> list[Variant]:
    """Every registered objective, with its defaults and with each of its own options."""
    return [
        Variant(name, tuple(options.items())) for name in objectives.names() for options in [{}, *_OWN.get(name, [])]
    ]


def every() -> list[Variant]:
    """`own`, and the shared options wherever an objective accepts them."""
    shared = [
        Variant(name, tuple(options.items()))
        for name in objectives.names()
        for options in _EVERYWHERE
        if _accepted(name, options)
    ]
    return sorted(own() + shared, key=lambda variant: objectives.names().index(variant.objective))


def guided() -> list[Variant]:
    """Objectives whose guidance is audited: those that stop at the truth and have a velocity of their own."""
    found = [Variant(name, (("guidance", 2.0),)) for name in objectives.names()]
    found = [variant for variant in found if variant.make().exact and variant.make().domain is not Domain.TO_DATA]
    return [*found, Variant("sgflow", (("guidance", 2.0), ("velocity_target", "batch")))]


def parse(name: str) -> Variant:
    """The variant with this name, of an objective or a preset. InputError for an unknown one or an invalid option."""
    parts = re.fullmatch(r"(\w+)(?:\(([^()]*)\))?", name)
    if parts is None:
        raise InputError(f"{name!r} is not an objective: write NAME or NAME(OPTION=VALUE,...)")
    name, inside = parts.groups("")
    objective, options = objectives.meant(name)
    defaults = objectives.default_options(objective)
    for item in filter(None, inside.split(",")):
        key, _, value = item.partition("=")
        if key not in defaults:
            raise InputError(f"{objective} has no option {key!r}: use {', '.join(defaults)}")
        options[key] = _convert(objective, key, value, defaults[key])
    variant = Variant(objective, tuple(options.items()))
    variant.make()
    return variant


def from_flag(items: list[str]) -> list[str]:
    """The names in a list flag, which absl also splits at commas inside parentheses. InputError for an invalid name."""
    names = re.split(r",(?![^(]*\))", ",".join(items)) if items else []
    return [parse(name.strip()).name for name in names]


def _convert(objective: str, key: str, value: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        return type(default)(value)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{objective}: {key}={value} is not of type {type(default).__name__}: use one like {default}"
        ) from error


def _accepted(name: str, options: dict[str, Any]) -> bool:
    defaults = objectives.default_options(name)
    if all(defaults.get(key) == value for key, value in options.items()):
        return False  # it is the default
    try:
        objectives.make(name, **options)
    except InputError:
        return False
    return True
