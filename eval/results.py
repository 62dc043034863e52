"""The rows of eval/fid.jsonl, and the table made from them."""

import dataclasses
import json

from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError


@dataclasses.dataclass(frozen=True)
class Identity:
    """What was measured: two distances compare only if these agree, except where they are the point of comparison.

    objective: what the run was trained with. checkpoint_step: training steps of the checkpoint. parameters: "ema".
    steps: network calls an example. method: of sampling. features: what was compared. data: the reference set.
    num_samples, seed: of the generated examples.
    """

    objective: str
    checkpoint_step: int
    parameters: str
    steps: int
    method: str
    features: str
    data: str
    num_samples: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured Fréchet distance `value` to `reference_count` examples of the data set."""

    identity: Identity
    reference_count: int
    value: float

    def flat(self) -> dict:
        """All fields in one dictionary: a line of fid.jsonl."""
        return {**dataclasses.asdict(self.identity), "reference_count": self.reference_count, "value": self.value}

    @classmethod
    def from_flat(cls, values: dict) -> "Row":
        """The inverse of `flat`."""
        rest = dict(values)
        count, value = rest.pop("reference_count"), rest.pop("value")
        return cls(Identity(**rest), count, value)


def read(workdir: str) -> list[Row]:
    """The rows of a run, in the order they were measured; none if there is no file. InputError names a damaged line."""
    file = paths.evaluation(workdir) / "fid.jsonl"
    rows = []
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else [], start=1):
        try:
            rows.append(Row.from_flat(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}, line {number}, is not a row of this version: remove it") from error
    return rows


def write(workdir: str, rows: list[Row]) -> None:
    """Replaces the rows of a run."""
    text = "".join(json.dumps(row.flat()) + "\n" for row in rows)
    paths.write_atomically(paths.evaluation(workdir) / "fid.jsonl", text)


def table(rows: list[Row]) -> str:
    """A Markdown table, one line a row, ordered so that the numbers of steps of one series stand together."""
    columns = list(rows[0].flat())
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    series = [name for name in columns if name not in ("steps", "value")]
    ordered = sorted((row.flat() for row in rows), key=lambda row: ([str(row[name]) for name in series], row["steps"]))
    for row in ordered:
        cells = {**row, "value": f"{row['value']:.4g}"}
        lines.append("| " + " | ".join(str(cells[name]) for name in columns) + " |")
    return "\n".join(lines) + "\n"
