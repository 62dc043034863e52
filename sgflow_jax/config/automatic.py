"""Fields whose value follows from the data: -1, or (-1,), in a configuration until a run begins."""

from typing import Any

import ml_collections

from sgflow_jax import data
from sgflow_jax.config import fields
from sgflow_jax.config.check import check_fields
from sgflow_jax.models import levels

AUTOMATIC = {"model.num_classes": -1, "model.channel_mult": (-1,), "model.attention_sizes": (-1,)}


def resolved(config: ml_collections.ConfigDict) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
    """A copy with values in place of AUTOMATIC, and the fields that were chosen here with their values. Prepares the
    data if a field depends on their classes. InputError if no value suits.

    Without classes there is no null class either: then model.label_dropout becomes 0.
    """
    check_fields(config)
    config = config.copy_and_resolve_references()
    missing, chosen = _missing(config), {}
    size = data.shape(config.data)[0] if missing else 0
    if "model.channel_mult" in missing:
        chosen["model.channel_mult"] = levels.channel_mult(size)
    if "model.attention_sizes" in missing:
        widths = chosen.get("model.channel_mult", config.model.get("channel_mult"))
        chosen["model.attention_sizes"] = levels.attention_sizes(size, len(widths))
    if "model.num_classes" in missing:  # last, as it may take long
        chosen["model.num_classes"] = len(data.classes(config.data))
        if not chosen["model.num_classes"] and config.model.label_dropout:
            chosen["model.label_dropout"] = 0.0
    config.update_from_flattened_dict(chosen)
    return config, chosen


def as_saved(config: ml_collections.ConfigDict, saved: dict[str, Any]) -> ml_collections.ConfigDict:
    """A copy with the values that a saved configuration has in place of AUTOMATIC. Reads no data."""
    config, theirs = config.copy_and_resolve_references(), fields.flatten(saved)
    missing = _missing(config)
    if "model.num_classes" in missing:
        missing.append("model.label_dropout")
    for name in set(missing) & set(theirs):
        section, _, last = name.rpartition(".")
        value = theirs[name]
        config[section][last] = tuple(value) if isinstance(value, list) else value
    return config


def _missing(config: ml_collections.ConfigDict) -> list[str]:
    values = fields.flatten(config.to_dict())
    return [name for name, automatic in AUTOMATIC.items() if name in values and values[name] == automatic]
