"""Finished runs from the files of their directories: what was logged, measured and kept. No checkpoint is read."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from eval import plots, results
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError


@dataclasses.dataclass(frozen=True)
class Run:
    """One workdir. label: its objective, or what else tells it from the others. rows: of fid.jsonl, one or more.
    config: None if none is recorded. history: the logged numbers of training, by "step"."""

    label: str
    workdir: str
    rows: list[results.Row]
    config: ml_collections.ConfigDict | None
    history: list[dict[str, float]]

    def chosen(self, kind: str) -> dict[int, list[results.Row]]:
        """By number of steps, rows that differ in the seed alone, lowest first: of the newest checkpoint, and rather of
        averaged parameters, the uniform grid and the method measured first. kind: as `plots.measured`."""
        rows = [row for row in self.rows if plots.measured(row.identity) == kind]
        newest = max(row.identity.checkpoint_step for row in rows)
        found = {}
        for steps in sorted({row.identity.steps for row in rows}):
            here = [row for row in rows if (row.identity.steps, row.identity.checkpoint_step) == (steps, newest)]
            if here:
                setting = _but_seed(min(here, key=_preference))
                found[steps] = sorted((r for r in here if _but_seed(r) == setting), key=lambda row: row.identity.seed)
        return found

    def examples(self, row: results.Row) -> np.ndarray | None:
        """The first generated examples of a row, uint8 [n, H, W, C] or float32 [n, D]; None if they were not kept.
        InputError if the file is damaged."""
        file = results.examples_file(self.workdir, row.identity)
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return arrays["examples"]
        except Exception as error:  # what np.load raises depends on which byte is damaged
            raise InputError(f"{file} is damaged: remove it") from error


def read(workdirs: Sequence[str]) -> list[Run]:
    """The runs in that order, each once.

    InputError for one that was not measured, and for runs whose distances cannot be compared.
    """
    workdirs = list(dict.fromkeys(str(Path(workdir)) for workdir in workdirs))
    rows = [results.read(workdir) for workdir in workdirs]
    for workdir, found in zip(workdirs, rows, strict=True):
        if not found:
            raise InputError(f"{workdir} has no measured rows: run python -m eval.fid_sweep --workdir={workdir} first")
    _check_same_data([row.identity.reference for found in rows for row in found])
    labels = results.labels(workdirs, [found[0].identity.objective for found in rows])
    runs = [
        Run(label, workdir, found, _config(workdir), _history(workdir))
        for label, workdir, found in zip(labels, workdirs, rows, strict=True)
    ]
    if not common_kinds(runs):
        having = [f"{run.label}: {', '.join(sorted({results.name(row.identity) for row in run.rows}))}" for run in runs]
        raise InputError(
            f"the runs have no kind of distance in common ({'; '.join(having)}): run python -m eval.fid_sweep for all "
            "of them with the same --features and --num_samples"
        )
    return runs


def common_kinds(runs: list[Run]) -> list[str]:
    """The kinds of distance (`plots.measured`) that every run has."""
    kinds = [dict.fromkeys(plots.measured(row.identity) for row in run.rows) for run in runs]
    return [kind for kind in kinds[0] if all(kind in others for others in kinds)]


def _but_seed(row: results.Row) -> results.Identity:
    return dataclasses.replace(row.identity, seed=0)


def _preference(row: results.Row) -> tuple[bool, bool]:
    return row.identity.parameters != "ema", row.identity.grid != "uniform"


def _check_same_data(references: list[results.ReferenceIdentity]) -> None:
    if len(names := sorted({reference.data for reference in references})) > 1:
        raise InputError(f"the workdirs are of different data ({', '.join(names)}): report them apart")
    for split in {reference.split for reference in references}:
        prints = sorted({reference.fingerprint for reference in references if reference.split == split})
        if len(prints) > 1:
            raise InputError(
                f"the workdirs were measured against different examples of {names[0]}/{split} (fingerprints "
                f"{', '.join(prints)}): measure them again against the same, or report them apart"
            )


def _config(workdir: str) -> ml_collections.ConfigDict | None:
    recorded = paths.recorded(workdir)
    return None if recorded is None else ml_collections.ConfigDict(recorded)


def _history(workdir: str) -> list[dict[str, float]]:
    """The lines of metrics.jsonl, without one that a kill cut short; none if there is no file."""
    file = paths.metrics_file(workdir)
    found = []
    try:
        lines = file.read_text().splitlines() if file.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({type(error).__name__}): remove it") from error
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
