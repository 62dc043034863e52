"""Records a run's configuration in its directory, and checks whether another one may continue the run."""

import json
from pathlib import Path
from typing import Any

import ml_collections

from sgflow_jax.config import fields
from sgflow_jax.config.check import completed
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError


def record(workdir: str, config: ml_collections.ConfigDict) -> None:
    """Writes the configuration to the directory, which is made if needed."""
    disk.write_atomically(_config_file(workdir), json.dumps(config.to_dict(), indent=2) + "\n")


def recorded(workdir: str) -> dict[str, Any] | None:
    """The recorded configuration, or None."""
    file = _config_file(workdir)
    try:
        if not file.exists():
            return None
        if not isinstance(found := disk.from_json(file.read_text()), dict):
            raise ValueError("not an object")
        return found
    except ValueError as error:  # damaged JSON, or no text at all
        raise InputError(f"{file} is damaged: remove it and give --config, the checkpoints have a copy") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): use another --workdir") from error


def _completed(saved: dict[str, Any]) -> dict[str, Any]:
    """With defaults for new fields; what is no configuration stays as it is, and differs."""
    try:
        return completed(saved).to_dict()
    except InputError:
        return saved


def _config_file(workdir: str) -> Path:
    return Path(workdir) / "config.json"


def check_same(workdir: str, saved: dict[str, Any], config: ml_collections.ConfigDict) -> None:
    """InputError, with the fields that differ, unless a run saved with one configuration may continue with another.

    Each field of `config.fields` says which changes it allows. Fields that the run's version did not have yet count as
    left at their defaults.
    """
    both = config.to_dict(), _completed(saved)
    # Through JSON, so that tuples and lists compare equal.
    ours, theirs = (fields.flatten(json.loads(json.dumps(tree))) for tree in both)
    differing = [
        f"{name} (there {theirs.get(name, 'absent')!r}, here {ours.get(name, 'absent')!r})"
        for name in sorted(set(ours) | set(theirs))
        if not fields.may_continue(name, ours, theirs)
    ]
    if differing:
        raise InputError(
            f"--workdir={workdir} holds a run of another configuration, which differs in {', '.join(differing)}: "
            "give the same values, or another --workdir"
        )
