"""The classes of a labelled run: names, and how many training examples each had."""

from typing import Any, NamedTuple

import ml_collections

from sgflow_jax import data
from sgflow_jax.interfaces import InputError


class Classes(NamedTuple):
    """names: of the labels 0, 1, ...; () without labels. counts: training examples of each class."""

    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


def of_identity(identity: dict[str, Any] | None) -> Classes:
    """The classes in a `data.Source.identity`; none if it names none."""
    found = (identity or {}).get("classes") or []
    return Classes(tuple(str(name) for name, _ in found), tuple(int(count) for _, count in found))


def of_run(config: ml_collections.ConfigDict, identity: dict[str, Any] | None) -> Classes:
    """The classes that a run's network knows; none if it was trained without labels.

    identity: of its training data, as saved. Older versions saved no classes: then those of the data set; if it is
    gone, its names, or "0", "1", ..., in equal shares.
    """
    count = config.model.num_classes
    if not count:
        return Classes()
    for find in (lambda: of_identity(identity), lambda: _of_data(config), lambda: _named(config)):
        try:
            found = find()
        except InputError:
            continue
        if len(found.names) == count:
            return found
    return Classes(tuple(map(str, range(count))), (1,) * count)


def _of_data(config: ml_collections.ConfigDict) -> Classes:
    return of_identity(data.read(data.request(config.data)).identity())


def _named(config: ml_collections.ConfigDict) -> Classes:
    names = data.classes(config.data)
    return Classes(names, (1,) * len(names))
