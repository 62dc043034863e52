"""Whether a configuration is complete: the fields of configs/base.py, each with a value of its type."""

from typing import Any

import ml_collections

from configs import base
from sgflow_jax import objectives
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import MAX_SEED, InputError

MAX_INTEGER = MAX_SEED  # of every field: they become int32
ALLOWED = {
    bool: "true or false",
    int: f"an integer of at most {MAX_INTEGER}",
    float: "a number",
    str: "text",
    tuple: "integers like (1,2,2)",
}


def check(config: ml_collections.ConfigDict) -> None:
    """InputError for a field that is missing, that there is not, or whose value is of another type.

    Which options an objective and a network have is for their registries to say.
    """
    given = paths.flatten(config.to_dict())
    for name, known in {"objective.name": objectives.names(), "model.name": tuple(base.NETWORKS)}.items():
        if given.get(name) not in known:
            raise InputError(f"config.{name} is {given.get(name)!r}: use one of {', '.join(known)}")
    like = base.get_config(given["objective.name"])
    like.model = base.NETWORKS[given["model.name"]]()
    defaults = paths.flatten(like.to_dict())

    for name in sorted(given.keys() ^ defaults.keys()):
        if not name.startswith(("objective.", "model.")):
            fault = "missing" if name in defaults else "no field that there is"
            raise InputError(f"config.{name} is {fault}: change values of configs/base.py, and no names")
    for name in defaults.keys() & given.keys():
        default, value = defaults[name], given[name]
        if default is not None and not _fits(value, default):
            raise InputError(f"config.{name} is {value!r}: use {ALLOWED[type(default)]}")


def completed(saved: dict[str, Any]) -> ml_collections.ConfigDict:
    """A configuration that was written to JSON: lists are tuples again, and a field that is newer than the run has its
    default, which changes nothing. InputError if it is not a configuration."""
    try:
        given = _with_tuples(saved)
        defaults = base.get_config(given["objective"]["name"])
        defaults.model = base.NETWORKS[given["model"]["name"]]()
        for section, fields in defaults.to_dict().items():
            given[section] = {**fields, **given.get(section, {})} if isinstance(fields, dict) else given[section]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"the configuration of the run is damaged ({type(error).__name__}: {error}): give --config"
        ) from error
    return ml_collections.ConfigDict(given)


def _with_tuples(tree: Any) -> Any:
    """JSON has no tuples; a network's fields must be hashable."""
    if isinstance(tree, dict):
        return {key: _with_tuples(value) for key, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, tuple | list) and all(_fits(item, 0) for item in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, int):
        return isinstance(value, int) and abs(value) <= MAX_INTEGER
    return isinstance(value, int | float if isinstance(default, float) else type(default))
