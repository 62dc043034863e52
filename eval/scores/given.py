"""The rows of samples that other code made: a file of them, and a table for the terminal."""

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from eval.scores import results
from eval.scores.identity import Origin, Scores
from sgflow_jax.files import disk, locks

WIDTH = 100  # characters of an explanation


def append(file: Path, rows: Sequence[results.Row]) -> None:
    """Adds rows to a file, one JSON object a line, in place of earlier rows of the same identity. InputError if it
    cannot be written."""
    new = [row.flat() for row in rows]
    others = {field.name for kind in (Scores, Origin) for field in dataclasses.fields(kind)}
    identities = [{key: value for key, value in row.items() if key not in others}.items() for row in new]

    def measured_again(values) -> bool:
        return isinstance(values, dict) and any(identity <= values.items() for identity in identities)

    with locks.held(file.with_name(f"{file.name}.lock")):
        lines = [line for line, values in disk.read_json_lines(file) if not measured_again(values)]
        lines += [json.dumps(row) for row in new]
        disk.write_atomically(file, "".join(f"{line}\n" for line in lines))


def screen(rows: Sequence[results.Row]) -> str:
    """A table, scores down and rows across, and what each row was compared with."""
    distance, *scores = results.score_columns().items()
    columns = [["", *(title for title, _ in scores)]]
    columns += [[distance[1](row), *(cell(row) or "-" for _, cell in scores)] for row in rows]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*columns, strict=True)
    ]
    told = [
        f"{results.name(row.identity)}: samples {row.identity.samples_fingerprint} against "
        f"{results.against(row.identity.reference)}."
        for row in rows
    ]
    if any(row.identity.reference.moments for row in rows):
        told.append("Moments alone give no kernel distance, precision or recall.")
    if any(row.scores.value_error is None for row in rows):
        told.append("Too few samples for an error (8 for each feature): the distance has a large bias.")
    return "\n".join([*lines, "", *(textwrap.fill(line, WIDTH) for line in told)])
