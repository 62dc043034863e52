"""The rows of eval/fid.jsonl: what was measured, on what, and the table made from them."""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval import features
from eval.scores.identity import VERSION, Given, Identity, Origin, ReferenceIdentity, Scores
from eval.tables.store import markdown
from sgflow_jax import run_sampler
from sgflow_jax.files import disk, locks
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import integrity, layout


class Kind(NamedTuple):
    """What two values must share to be drawn in one panel. distance: its `name`. against: see `against`."""

    distance: str
    against: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of fid.jsonl, or of the file of `given.append`. origin: what measured it, not what was measured."""

    identity: Identity | Given
    scores: Scores
    origin: Origin = Origin()

    @property
    def kind(self) -> Kind:
        return Kind(name(self.identity), against(self.identity.reference))

    def flat(self) -> dict[str, Any]:
        """All fields in one dictionary, under their keys in the file."""
        values = dataclasses.asdict(self.identity)
        reference = values.pop("reference")
        values = {_KEYS.get(name, name): value for name, value in values.items()}
        return {**values, **reference, **dataclasses.asdict(self.scores), **dataclasses.asdict(self.origin)}

    @classmethod
    def from_flat(cls, values: dict[str, Any]) -> "Row":
        """The inverse of `flat` for a line of fid.jsonl; a missing field has its default. KeyError or TypeError for
        other fields, values of the wrong type, NaN, infinity, and text unfit for a file name."""
        names = {key: name for name, key in _KEYS.items()}
        rest = {names.get(key, key): value for key, value in values.items()}
        rest |= {key: tuple(rest[key]) for key in ("value_parts", "class_counts") if rest[key] is not None}
        parts = [{f.name: rest.pop(f.name) for f in dataclasses.fields(kind) if f.name in rest} for kind in _PARTS]
        if rest:
            raise KeyError(*rest)
        for kind, part in zip(_PARTS, parts, strict=True):
            for field in dataclasses.fields(kind):
                if field.default is not dataclasses.MISSING:
                    part.setdefault(field.name, field.default)
                if field.name != "reference" and not _fits(part[field.name], field.type):
                    raise TypeError(field.name)
        reference, identity, scores, origin = parts
        identity = Identity(**identity, reference=ReferenceIdentity(**reference))
        return cls(identity, Scores(**scores), Origin(**origin))


_KEYS = {"calls": "steps"}  # fields that have another key in the file
_PARTS = (ReferenceIdentity, Identity, Scores, Origin)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(each, typing.get_args(kind)[0]) for each in value)
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    # Texts become parts of file names.
    return isinstance(value, kind) and (kind is not str or re.fullmatch(r"[\w.+,-]*", value) is not None)


def name(identity: Identity | Given) -> str:
    """The name of a row's distance, with its number of samples: FID-50k has exactly 50,000."""
    reference = identity.reference
    distance = features.distance_name(reference.features, reference.weights, reference.resize)
    thousands, rest = divmod(identity.num_samples, 1000)
    return f"{distance}, {identity.num_samples:,} samples" if rest else f"{distance}-{thousands}k"


def read(workdir: str) -> list[Row]:
    """The rows of a run, in the order they were measured; none if there is no file. Leaves out rows of another VERSION,
    which are measured again, and all but the first of one identity. InputError names a damaged line."""
    return _read(workdir)[0]


def _read(workdir: str) -> tuple[list[Row], list[str]]:
    """The rows of `read`, and the lines of other versions."""
    file = layout.evaluation(workdir) / "fid.jsonl"
    rows, others = [], []
    for number, (line, values) in enumerate(disk.read_json_lines(file), start=1):
        try:
            # Another version may have other fields, so do not check them.
            if isinstance(version := values.get("version"), int) and version != VERSION:
                others.append(line)
                continue
            rows.append(Row.from_flat(values))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file}, line {number}, is not a row of this version: remove it") from error
    known = {}
    for row in rows:
        known.setdefault(row.identity, row)
    return list(known.values()), others


def append(workdir: str, *rows: Row) -> None:
    """Adds rows to those of a run, except identities that another sweep has added meanwhile.

    Removes rows of another network at the same step, from before the run was trained again: its checkpoint no longer
    exists.
    """
    networks = {(row.identity.checkpoint_step, row.identity.parameters): row.identity.network for row in rows}

    def superseded(old: Identity) -> bool:
        return networks.get((old.checkpoint_step, old.parameters), old.network) != old.network

    def changed(known: list[Row]) -> list[Row]:
        kept = {old.identity: old for old in known if not superseded(old.identity)}
        for row in rows:
            kept.setdefault(row.identity, row)
        return list(kept.values())

    _change(workdir, changed)


def check_writable(workdir: str) -> None:
    """InputError unless rows can be added to those of a run: writes the present ones again."""
    _change(workdir, lambda known: known)


def _change(workdir: str, changed: Callable[[list[Row]], list[Row]]) -> None:
    """Replaces the rows of a run by changed(rows), under a lock. Keeps the lines of other versions, which may be in
    use."""
    folder = layout.evaluation(workdir)
    with locks.held(folder / "lock"):
        rows, others = _read(workdir)
        lines = [*others, *(json.dumps(row.flat()) for row in changed(rows))]
        disk.write_atomically(folder / "fid.jsonl", "".join(f"{line}\n" for line in lines))


def examples_file(workdir: str, identity: Identity) -> Path:
    """The file of a row's first generated examples, an array "examples"; their picture is beside it, .png."""
    parts = [f"step_{identity.checkpoint_step}", identity.network, identity.method, str(identity.calls)]
    # A list of times may be too long for the name of a file.
    grid = f"times_{integrity.digest(identity.grid)[:12]}" if "," in identity.grid else identity.grid
    parts += [grid] * (grid != "uniform") + [identity.parameters] * (identity.parameters != "ema")
    parts += [f"seed_{identity.seed}"] * (identity.seed != 0)
    parts += [identity.network_precision] * (identity.network_precision != "highest")
    parts += [f"labels_{identity.labels}"] * bool(identity.labels)
    if identity.guided:
        parts += [f"guidance_{run_sampler.number(identity.guidance)}", identity.guidance_interval]
    return layout.evaluation(workdir) / "samples" / f"{'-'.join(filter(None, parts))}.npz"


def table(rows: list[Row], runs: Sequence[str] = ()) -> str:
    """A Markdown table of `columns`, the rows `in_order`. runs: names of the rows' runs, for one more column."""
    titles = {title: lambda row, cell=cell: cell(row[1]) for title, cell in columns().items()}
    named = list(zip(runs or [""] * len(rows), rows, strict=True))
    named.sort(key=lambda each: (each[0], _order(each[1])))
    return markdown({"run": lambda row: row[0], **titles} if runs else titles, named)


def in_order(rows: list[Row]) -> list[Row]:
    """Sorted so that the numbers of calls of one series are consecutive."""
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple:
    return dataclasses.astuple(dataclasses.replace(row.identity, calls=0)), row.identity.calls


def columns() -> dict[str, Callable[[Row], str]]:
    """The columns of a table with the whole identity of every number: title -> function that makes the cell."""
    return {
        "objective": lambda row: row.identity.objective,
        "steps": lambda row: str(row.identity.calls),
        **score_columns(),
        "sampling": lambda row: (
            f"{row.identity.method}, {row.identity.grid}, seed {row.identity.seed}"
            + f", {row.identity.guided}" * bool(row.identity.guided)
            + ", labels as in the data" * bool(row.identity.labels)
        ),
        "network": lambda row: (
            f"step {row.identity.checkpoint_step}, {row.identity.parameters} ({row.identity.network})"
            + f", {row.identity.network_precision} precision" * (row.identity.network_precision != "highest")
        ),
        "against": lambda row: against(row.identity.reference),
        "class counts": lambda row: " ".join(map(str, row.scores.class_counts or ())),
    }


def score_columns() -> dict[str, Callable[[Row], str]]:
    """The columns of `columns` with scores, and the name of the distance first."""
    return {
        "distance": lambda row: name(row.identity),
        "value": lambda row: plus_minus(row.scores.value, row.scores.value_error),
        "infinite samples": lambda row: plus_minus(row.scores.value_infinite, None),
        "kernel distance": lambda row: plus_minus(row.scores.kernel, row.scores.kernel_error),
        "precision": lambda row: plus_minus(row.scores.precision, None),
        "recall": lambda row: plus_minus(row.scores.recall, None),
    }


def plus_minus(value: float | None, error: float | None) -> str:
    """A number and its error, as far as they are known."""
    if value is None:
        return ""
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"


def against(reference: ReferenceIdentity) -> str:
    """One line that says what generated examples were compared with."""
    where = f"{reference.reference_count:,} of {reference.title} ({reference.fingerprint})"
    if reference.moments:
        where = f"{reference.moments} (moments only, SHA-256 {reference.fingerprint})"
    weights = ", ".join(filter(None, [reference.weights, reference.resize]))
    return f"{where}, {reference.features}" + f" ({weights})" * bool(weights)
