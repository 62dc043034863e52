"""Names for runs, and the configuration fields in which they differ."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgflow_jax.config import fields

MOST = 3  # fields in a name
# Fields that may change when a run continues do not affect what it learns, except its length.
_ASIDE = {*fields.MAY_CHANGE, "train.keep_every"} - {"train.num_steps"}
_SHORT = {"optim.learning_rate": "lr", "train.num_steps": "steps", "data.batch_size": "batch"}

Config = dict[str, Any] | None  # as in config.json; None if there is none


def labels(workdirs: Sequence[str], objectives: Sequence[str], configs: Sequence[Config]) -> list[str]:
    """A unique name for each run: its objective; where these are equal, the fields that differ, like "lr 0.002"; else
    the name of its directory, or the part of its path that differs."""
    folders = [Path(workdir).resolve() for workdir in workdirs]
    names = [folder.name for folder in folders]
    ends = [str(folder.relative_to(os.path.commonpath(folders))) for folder in folders]
    choices = [list(objectives), _by_fields(objectives, configs), names, ends]
    return next(each for each in choices if each and len(set(each)) == len(folders))


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
        if len(chosen) > MOST:
            return []
        for number, place in enumerate(places):
            parts = [f"{_short(name)} {values[number]}" for name, values in chosen.items()]
            first = [objective] * (len(set(objectives)) > 1 or not parts)
            found[place] = ", ".join([*first, *parts])
    return found


def _short(name: str) -> str:
    return _SHORT.get(name, name.rpartition(".")[2].replace("_", " "))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
