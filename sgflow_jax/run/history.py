"""Reads what a run recorded: its log and its events."""

from typing import Any

from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout


def metrics(workdir: str) -> list[dict[str, float]]:
    """The rows of metrics.jsonl, without one that a kill cut short. InputError for a line that is not of a log."""
    file = layout.metrics_file(workdir)
    found = []
    for line, row in disk.read_json_lines(file):
        if row is None:
            continue
        if not isinstance(row, dict) or "step" not in row or not all(isinstance(v, int | float) for v in row.values()):
            raise InputError(f"{file} has an invalid line ({line[:40]}): remove the line")
        found.append(row)
    return found


def events(workdir: str) -> list[dict[str, Any]]:
    """The events of events.jsonl, without damaged lines."""
    return [row for _, row in disk.read_json_lines(layout.events_file(workdir)) if isinstance(row, dict)]
