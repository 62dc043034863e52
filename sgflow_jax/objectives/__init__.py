"""The registry of training objectives: one line each. `register` adds one from outside the package."""

import dataclasses
from typing import Any

from sgflow_jax.interfaces import InputError
from sgflow_jax.objectives.base import Objective
from sgflow_jax.objectives.consistency import Consistency
from sgflow_jax.objectives.ctm import CTM
from sgflow_jax.objectives.eulerian import ESD, SlimESD
from sgflow_jax.objectives.flow_matching import FlowMatching
from sgflow_jax.objectives.fmm import FMM
from sgflow_jax.objectives.lagrangian import LSD, SlimLSD
from sgflow_jax.objectives.mean_flow import ImprovedMeanFlow, MeanFlow
from sgflow_jax.objectives.progressive import PSD
from sgflow_jax.objectives.sgflow import SGFlow
from sgflow_jax.objectives.shortcut import Shortcut

_OBJECTIVES: dict[str, type[Objective]] = {
    "sgflow": SGFlow,
    "flow_matching": FlowMatching,
    "mean_flow": MeanFlow,
    "improved_mean_flow": ImprovedMeanFlow,
    "esd": ESD,
    "slim_esd": SlimESD,
    "lsd": LSD,
    "slim_lsd": SlimLSD,
    "psd": PSD,
    "fmm": FMM,
    "consistency": Consistency,
    "ctm": CTM,
    "shortcut": Shortcut,
}
# Names for an objective with options other than the paper's: what docs/comparison.md found better at equal cost.
_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgflow_recommended": ("sgflow", {"velocity_target": "batch", "correction": 0.5}),
}
_BUILT_IN = frozenset(_OBJECTIVES) | frozenset(_PRESETS)


def names() -> tuple[str, ...]:
    """Every registered objective."""
    return tuple(_OBJECTIVES)


def register(name: str, objective: type[Objective]) -> None:
    """Lets configurations, training and audits of this process know an objective by a name of its own. Registered
    again, as when a notebook's cell is run again, the new class takes the old one's place.

    InputError for a name that is not an identifier or belongs to the package, or for what is not an objective's class.
    """
    if name in _BUILT_IN or not name.isidentifier():
        raise InputError(f"an objective cannot be registered as {name!r}: use an identifier that is not yet taken")
    if not (isinstance(objective, type) and issubclass(objective, Objective)):
        raise InputError(f"{objective!r} is not the class of an objective: derive one from FlowMapObjective")
    _OBJECTIVES[name] = objective


def make(name: str, **options: Any) -> Objective:
    """The objective called `name`. InputError for an unknown objective, option or value, with the valid ones."""
    cls = _lookup(name)
    allowed = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise InputError(f"{name} has no option {', '.join(unknown)}: its options are {', '.join(allowed)}")
    return cls(**options)


def default_options(name: str) -> dict[str, Any]:
    """The options of an objective with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(_lookup(name))}


def meant(name: str) -> tuple[str, dict[str, Any]]:
    """The objective that the name of an objective or a preset means, and the options that the preset sets. InputError
    for another name."""
    if name not in _OBJECTIVES and name not in _PRESETS:
        raise InputError(f"unknown objective {name!r}: use one of {', '.join([*_OBJECTIVES, *_PRESETS])}")
    objective, options = _PRESETS.get(name, (name, {}))
    return objective, dict(options)


def section(name: str) -> dict[str, Any]:
    """The section `objective` of a configuration for an objective or a preset: its name and all its options.
    InputError for another name."""
    objective, options = meant(name)
    return {"name": objective, **default_options(objective), **options}


def _lookup(name: str) -> type[Objective]:
    if name not in _OBJECTIVES:
        raise InputError(f"unknown objective {name!r}: use one of {', '.join(_OBJECTIVES)}")
    return _OBJECTIVES[name]
