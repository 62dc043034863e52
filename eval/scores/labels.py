"""Names for runs, and the configuration fields in which they differ."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgflow_jax import objectives as registry
from sgflow_jax.config import fields

MOST = 4  # fields in a name
NEAR = 1.01  # lengths whose ratio is below this are of one budget, which buys each run whole parts
_PLACES = ("dir", "data_dir")  # of the data: fields of a configuration's section `data`
_LENGTH = "train.num_steps"
# Fields that may change when a run continues do not affect what it learns, except its length, and the place of its
# data: other images may lie there.
_ASIDE = {*fields.MAY_CHANGE, "train.keep_every"} - {_LENGTH, *(f"data.{name}" for name in _PLACES)}
_TEACHERS_PLACE = "teacher.workdir"  # its network has a fingerprint in another field
_SHORT = {
    "optim.learning_rate": "lr",
    "train.num_steps": "steps",
    "data.batch_size": "batch",
    "data.fingerprint": "data",
}

Config = dict[str, Any] | None  # completed, of `as_trained`; None if there is none


def as_trained(config: Config, identity: dict[str, Any]) -> Config:
    """A configuration in which the fingerprints of the training data stand for the place of these, so that the same
    images in two places are the same, and others in one place are not. identity: of `training_data`; if it is {}, the
    configuration is returned as it is."""
    if not config or not identity:
        return config
    # A network without labels learns nothing from those of the data.
    names = ("fingerprint", "labels") if config.get("model", {}).get("num_classes") else ("fingerprint",)
    section = {name: value for name, value in config.get("data", {}).items() if name not in _PLACES}
    return {**config, "data": section | {name: identity[name] for name in names if name in identity}}


def labels(workdirs: Sequence[str], objectives: Sequence[str], configs: Sequence[Config]) -> list[str]:
    """A unique name for each run: its objective; where these are equal, the fields that differ, like "lr 0.002"; else
    the name of its directory, or the part of its path that differs."""
    folders = [Path(workdir).resolve() for workdir in workdirs]
    names = [folder.name for folder in folders]
    ends = [str(folder.relative_to(os.path.commonpath(folders))) for folder in folders]
    choices = [list(objectives), _by_fields(objectives, configs), names, ends]
    return next(each for each in choices if each and len(set(each)) == len(folders))


def groups(configs: Sequence[Config]) -> list[list[int]]:
    """Places of the runs that differ in the seed alone, each in one group. Alone is a run without a configuration, and
    one whose seed another has too: the two are no sample of seeds."""
    found: dict[str, list[int]] = {}
    for place, config in enumerate(configs):
        flat = {} if config is None else fields.flatten(config)
        kept = {name: value for name, value in flat.items() if name not in {*_ASIDE, "seed", _TEACHERS_PLACE}}
        key = json.dumps(kept, sort_keys=True) if flat else str(place)
        found.setdefault(key, []).append(place)
    chosen = []
    for places in found.values():
        seeds = {json.dumps((configs[place] or {}).get("seed")) for place in places}
        chosen += [places] if len(seeds) == len(places) else [[place] for place in places]
    return sorted(chosen)


def group_names(workdirs: Sequence[str], objectives: Sequence[str], configs: Sequence[Config]) -> list[str]:
    """A name for each run, the same for those of one of the `groups`; as in `labels` otherwise."""
    found = groups(configs)
    shown = [
        configs[places[0]] if len(places) == 1 else {k: v for k, v in configs[places[0]].items() if k != "seed"}
        for places in found
    ]
    firsts = [places[0] for places in found]
    names = labels([workdirs[place] for place in firsts], [objectives[place] for place in firsts], shown)
    by_place = {place: name for name, places in zip(names, found, strict=True) for place in places}
    return [by_place[place] for place in range(len(configs))]


def differences(configs: Sequence[Config]) -> dict[str, list[str]]:
    """The fields in which configurations differ, each with its value in every configuration; "" if absent."""
    flat = [{} if config is None else fields.flatten(json.loads(json.dumps(config))) for config in configs]
    found = {}
    for name in dict.fromkeys(name for each in flat for name in each):
        values = [_text(each[name]) if name in each else "" for each in flat]
        if len(set(values)) > 1:
            found[name] = values
    return found


def _by_fields(objectives: Sequence[str], configs: Sequence[Config]) -> list[str]:
    """Names from the fields that differ among the runs of one objective; empty if there are more than MOST."""
    found = [""] * len(configs)
    for objective in dict.fromkeys(objectives):
        places = [place for place, other in enumerate(objectives) if other == objective]
        differing = differences([configs[place] for place in places])
        chosen = {name: values for name, values in differing.items() if name not in _ASIDE and all(values)}
        if steps := chosen.get(_LENGTH):
            chosen = {name: values for name, values in chosen.items() if not _scaled(name, values, steps)}
            if max(map(float, steps)) < NEAR * min(map(float, steps)):
                del chosen[_LENGTH]
        if len(chosen) > MOST:
            return []
        unsaid = _defaults(objective)
        parts = [
            [f"{_short(name)} {values[n]}" for name, values in chosen.items() if unsaid.get(name) != values[n]]
            for n in range(len(places))
        ]
        first = [objective] * (len(set(objectives)) > 1 or not all(parts))
        for place, own in zip(places, parts, strict=True):
            found[place] = ", ".join([*first, *own])
    return found


def _defaults(objective: str) -> dict[str, str]:
    """The options of an objective at their defaults, which names leave out; none of one that is not registered here."""
    known = registry.default_options(objective) if objective in registry.names() else {}
    return {f"objective.{name}": _text(value) for name, value in known.items()}


def _scaled(name: str, values: Sequence[str], steps: Sequence[str]) -> bool:
    """Whether a field is a length that is the same share of every run, but for rounding, so that `steps` tell it."""
    if name == _LENGTH or not name.endswith("_steps") or not all(value.isdigit() for value in values):
        return False
    shares = [float(value) / float(whole) for value, whole in zip(values, steps, strict=True)]
    return max(shares) - min(shares) <= 1 / min(map(float, steps))


def _short(name: str) -> str:
    return _SHORT.get(name, name.rpartition(".")[2].replace("_", " "))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
