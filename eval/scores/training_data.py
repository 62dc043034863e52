"""The identity of a run's training data, kept beside its rows, so that a page needs no checkpoint."""

import json
from pathlib import Path
from typing import Any

from sgflow_jax.files import disk
from sgflow_jax.run import layout


def write(workdir: str, identity: dict[str, Any] | None) -> None:
    """Writes a `data.Source.identity`, as a checkpoint has it, to the results of a run, unless it is there."""
    if identity and identity != read(workdir):
        disk.write_atomically(_file(workdir), json.dumps(identity) + "\n")


def read(workdir: str) -> dict[str, Any]:
    """The identity of `write`; {} if there is none, or the file is damaged."""
    try:
        found = disk.from_json(_file(workdir).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _file(workdir: str) -> Path:
    return layout.evaluation(workdir) / "data.json"
