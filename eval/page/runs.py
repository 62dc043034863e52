"""Reads finished runs from their directories: logs, measurements and stored examples, but no checkpoints."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from eval.scores import class_names, labels, results, seeds, training_data
from sgflow_jax import data, objectives, sampling
from sgflow_jax.config.check import completed
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import history, record


@dataclasses.dataclass(frozen=True)
class Run:
    """One workdir. label: its objective, or another property that distinguishes it. group: the label of its `Group`.
    rows: of fid.jsonl, at least one. config: None if not recorded. history: the lines of metrics.jsonl. events: the
    lines of events.jsonl. classes: their names, () if not recorded."""

    label: str
    group: str
    workdir: str
    rows: list[results.Row]
    config: ml_collections.ConfigDict | None
    history: list[dict[str, float]]
    events: list[dict[str, Any]]
    classes: tuple[str, ...]

    def chosen(self, kind: results.Kind) -> dict[int, list[results.Row]]:
        """As `Group.chosen`, of this run alone."""
        return Group(self.label, [self]).chosen(kind)

    @property
    def own_method(self) -> str | None:
        """The sampling method of the run's objective; None if its configuration is unknown or of another version."""
        try:
            return None if self.config is None else sampling.methods(objectives.make(**self.config.objective))[0]
        except (ValueError, AttributeError, KeyError):
            return None

    def _shape(self, otherwise: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an example by the configuration; `otherwise` if that is unknown or of another version."""
        try:
            return otherwise if self.config is None else data.shape(self.config.data)
        except (ValueError, AttributeError, KeyError):
            return otherwise

    def examples(self, row: results.Row) -> np.ndarray | None:
        """The stored examples of a row, uint8 [n, H, W, C] or float32 [n, D]; None if there are none. InputError if the
        file is damaged."""
        file = results.examples_file(self.workdir, row.identity)
        if not file.exists():
            return None
        (found,) = disk.read_arrays(file, "examples")
        kinds = {4: np.uint8, 2: np.float32}
        if found.dtype != kinds.get(found.ndim) or not len(found) or found.shape[1:] != self._shape(found.shape[1:]):
            raise InputError(f"{file} is damaged (not examples of {row.identity.reference.data}): remove it")
        return found


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone, in the order given, or a single run. label: unique among groups."""

    label: str
    runs: list[Run]

    def chosen(self, kind: results.Kind) -> dict[int, list[results.Row]]:
        """The rows of one setting by number of steps; they differ only in the network and the seed, and are sorted by
        the latter. Their networks are those of `seeds.of_one_set`.

        The setting: newest checkpoint; among its settings prefer EMA, then the uniform grid, no guidance, labels as in
        the data, the objective's own method, then the method with the most step counts.
        """
        own = self.runs[0].own_method
        rows = [row for run in self.runs for row in run.rows if row.kind == kind]
        newest = max(row.identity.checkpoint_step for row in rows)
        settings = {}
        for row in rows:
            if row.identity.checkpoint_step == newest:
                key = dataclasses.replace(row.identity, calls=0, seed=0, network="")
                settings.setdefault(key, []).append(row)

        def preference(setting: results.Identity) -> tuple:
            counts = {row.identity.calls for row in settings[setting]}
            usual = setting.parameters == "ema", setting.grid == "uniform", not setting.guided, bool(setting.labels)
            return *(not each for each in usual), setting.method != own, -len(counts)

        found = {}
        for row in sorted(settings[min(settings, key=preference)], key=lambda row: row.identity.seed):
            found.setdefault(row.identity.calls, []).append(row)
        return seeds.of_one_set(dict(sorted(found.items())))


def groups(runs: Sequence[Run]) -> list[Group]:
    """The runs by group, in the order of the first of each."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.group, []).append(run)
    return [Group(label, each) for label, each in found.items()]


def read(workdirs: Sequence[str]) -> list[Run]:
    """Reads the runs in the given order, without duplicates.

    InputError for a run without measurements, or for runs whose distances are not comparable.
    """
    workdirs = list({Path(workdir).resolve(): str(Path(workdir)) for workdir in workdirs}.values())
    rows = [results.read(workdir) for workdir in workdirs]
    for workdir, found in zip(workdirs, rows, strict=True):
        if not found:
            raise InputError(f"{workdir} has no measured rows: run python -m eval.fid_sweep --workdir={workdir} first")
    _check_same_data([row.identity.reference for found in rows for row in found])
    configs = [_config(record.recorded(workdir)) for workdir in workdirs]
    trained = [
        labels.as_trained(None if config is None else config.to_dict(), training_data.read(workdir))
        for config, workdir in zip(configs, workdirs, strict=True)
    ]
    facts = workdirs, [found[0].identity.objective for found in rows], trained
    named = zip(labels.labels(*facts), labels.group_names(*facts), strict=True)
    runs = [
        Run(*names, place, found, config, history.metrics(place), history.events(place), class_names.read(place))
        for names, place, found, config in zip(named, workdirs, rows, configs, strict=True)
    ]
    if not common_kinds(runs):
        having = [f"{run.label}: {', '.join(sorted({results.name(row.identity) for row in run.rows}))}" for run in runs]
        raise InputError(
            f"the runs have no kind of distance in common ({'; '.join(having)}): run python -m eval.fid_sweep for all "
            "of them with the same --features and --num_samples"
        )
    return runs


def common_kinds(runs: list[Run]) -> list[results.Kind]:
    """The kinds of distance that every run has."""
    kinds = [dict.fromkeys(row.kind for row in run.rows) for run in runs]
    return [kind for kind in kinds[0] if all(kind in others for others in kinds)]


def _check_same_data(references: list[results.ReferenceIdentity]) -> None:
    if len(names := sorted({reference.data for reference in references})) > 1:
        raise InputError(f"the runs use different data ({', '.join(names)}): report them separately")
    references = [reference for reference in references if not reference.moments]
    for split in {reference.split for reference in references}:
        prints = sorted({reference.fingerprint for reference in references if reference.split == split})
        if len(prints) > 1:
            raise InputError(
                f"the runs were measured against different examples of {names[0]}/{split} (fingerprints "
                f"{', '.join(prints)}): measure them again against the same examples, or report them separately"
            )


def _config(recorded: dict[str, Any] | None) -> ml_collections.ConfigDict | None:
    if recorded is None:
        return None
    try:
        return completed(recorded)
    except InputError:  # of another version: what needs it says so
        return ml_collections.ConfigDict(recorded)
