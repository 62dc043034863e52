"""The names of the classes that a classifier counts, kept beside the rows of a run, so that a page needs no data."""

import json
from pathlib import Path

from sgflow_jax import data
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import classes, layout
from sgflow_jax.run.access import Opened


def of_data(opened: Opened) -> tuple[str, ...]:
    """The classes of a run's data, whether or not its network knows them; () for data without labels."""
    found = classes.of_identity(opened.data).names
    if found:
        return found
    try:
        return data.classes(opened.config.data)
    except InputError:  # the data are gone
        return ()


def write(workdir: str, names: tuple[str, ...]) -> None:
    """Writes the names to the results of a run, unless they are there."""
    if names and names != read(workdir):
        disk.write_atomically(_file(workdir), json.dumps(names) + "\n")


def read(workdir: str) -> tuple[str, ...]:
    """The names of `write`; () if there are none, or the file is damaged."""
    try:
        found = disk.from_json(_file(workdir).read_text())
    except (OSError, ValueError):
        return ()
    return tuple(found) if isinstance(found, list) and all(isinstance(name, str) for name in found) else ()


def _file(workdir: str) -> Path:
    return layout.evaluation(workdir) / "classes.json"
