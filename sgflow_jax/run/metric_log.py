"""Writes a run's numbers to metrics.jsonl, the terminal and other programs, and its events to events.jsonl."""

import contextlib
import datetime
import errno
import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from tqdm import tqdm

from sgflow_jax import terminal
from sgflow_jax.display import figures
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import layout
from sgflow_jax.run.mirror import Mirror
from sgflow_jax.run.tensorboard import TensorBoard
from sgflow_jax.run.weights_and_biases import WeightsAndBiases

_SHORT = {"diagonal_loss": "diag", "residual_norm_sq": "resid"}


class Distance(NamedTuple):
    """A kind of distance measured while training: network calls for each example, features, and number of examples. Its
    name has all three, so that no column of the log mixes two kinds."""

    calls: int
    features: str
    samples: int

    @property
    def name(self) -> str:
        """Its column in the log: distance_CALLS_FEATURES_SAMPLES."""
        return f"distance_{self.calls}_{self.features}_{self.samples}"

    @classmethod
    def of(cls, name: str) -> "Distance | None":
        """Parses a name; None for other names."""
        match = re.fullmatch(r"distance_(\d+)_(\w+)_(\d+)", name)
        return match and cls(int(match[1]), match[2], int(match[3]))


class MetricLog:
    """The log of one run. Use as a context manager.

    start: the step the run (re)starts from; later lines, left by a kill after the last checkpoint, are removed. total:
    the step it runs to. project: of Weights & Biases, "" for none. Shows a progress bar on a terminal, plain lines
    otherwise. Lines that cannot be written, on a full disk, are kept and retried with the next line.
    """

    def __init__(self, workdir: str, start: int, total: int, project: str = ""):
        self._workdir, self._total = workdir, total
        self._mirrors: list[Mirror] = [TensorBoard(layout.tensorboard(workdir), start)]
        if project:  # before the later lines are removed
            self._mirrors.append(WeightsAndBiases(project, workdir, int(self.last.get("step", 0)), self.say))
        self._metrics = _Lines(layout.metrics_file(workdir), self.say, start)
        self._events = _Lines(layout.events_file(workdir), self.say)
        self._bar: tqdm | None = None
        self._pace = (start, time.perf_counter())

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        if self._bar:
            self._bar.close()
        for mirror in self._mirrors:
            mirror.close(failed=error is not None)
        self._metrics.close()
        self._events.close()

    @property
    def last(self) -> dict[str, float]:
        """The newest row of the log, or {}."""
        rows = _rows(layout.metrics_file(self._workdir))
        return json.loads(rows[-1][1]) if rows else {}

    def begin(self, step: int) -> None:
        """Starts the progress bar and its forecast: training steps follow."""
        self._pace = (step, time.perf_counter())
        self._bar = self._new_bar(step)

    def describe(self, config: ml_collections.ConfigDict, parameters: str) -> None:
        """Shows the configuration in the other programs, and writes the table of parameters."""
        for mirror in self._mirrors:
            mirror.config(config.to_dict())
        self._file(layout.parameters_file(self._workdir), f"{parameters}\n")

    def advance(self, steps: int) -> None:
        """Moves the progress bar."""
        if self._bar:
            self._bar.update(steps)

    def rewind(self, step: int) -> None:
        """Removes the rows of later steps, which will be repeated."""
        self._metrics.rewind(step)
        for mirror in self._mirrors:
            mirror.rewind(step)
        if self._bar:
            self._bar.close()
        self.begin(step)

    def say(self, line: str) -> None:
        """Prints a line without breaking the progress bar."""
        terminal.say(line)

    def event(self, kind: str, step: int, line: str, **more: Any) -> None:
        """Prints a line and appends it, with more JSON fields, to events.jsonl, which is never shortened."""
        self.say(line)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._events.append({"time": now, "event": kind, "step": step, "what": " ".join(line.split()), **more})

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the numbers of one step everywhere."""
        self._metrics.append({"step": step, **values})
        for mirror in self._mirrors:
            mirror.scalars(step, values)
        if self._bar:
            self._bar.set_postfix_str(summary(values))
        else:
            since, then = self._pace
            left = (self._total - step) * (time.perf_counter() - then) / max(step - since, 1)
            self.say(f"step {step:,} of {self._total:,}: {summary(values)} ({duration(left)} to go)")

    def preview(self, step: int, picture: np.ndarray) -> None:
        """Writes a picture uint8 [h, w, 3] as previews/step_N.png, and shows it in the other programs."""
        self._file(layout.preview_file(self._workdir, step), figures.png(picture))
        for mirror in self._mirrors:
            mirror.image(step, picture)

    def _file(self, path: Path, content: str | bytes) -> None:
        try:
            disk.write_atomically(path, content)
        except InputError as error:
            self.say(f"warning: {error}")

    def _new_bar(self, step: int) -> tqdm | None:
        bar = terminal.bar(initial=step, total=self._total, unit="step")
        return None if bar.disable else bar


def summary(values: dict[str, float]) -> str:
    """The most telling values of a row, in a few words: the error on the diagonal, the residual of the objective's
    equation, distances, and speed. The loss only if the first two are missing."""
    parts = [f"{short} {values[name]:.3g}" for name, short in _SHORT.items() if name in values]
    parts = parts or [f"loss {values['loss']:.3g}"]
    parts += [f"FD({found.calls}) {values[name]:.3g}" for name in values if (found := Distance.of(name))]
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:,.0f} img/s")
    return " ".join(parts)


def duration(seconds: float) -> str:
    """Formats seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class NoLog:
    """A `MetricLog` that prints and writes nothing, for all processes but the first."""

    last: dict[str, float] = {}

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_) -> None: ...

    def advance(self, steps: int) -> None: ...

    def rewind(self, step: int) -> None: ...

    def say(self, line: str) -> None: ...

    def event(self, kind: str, step: int, line: str, **more: Any) -> None: ...

    def begin(self, step: int) -> None: ...

    def describe(self, config: ml_collections.ConfigDict, parameters: str) -> None: ...

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def preview(self, step: int, picture: np.ndarray) -> None: ...


class _Lines:
    """A file of JSON objects, one a line, each with a "step". Opening it removes damaged lines (a kill may leave half a
    line) and rows of steps after `last`. say: called with a warning when writing fails."""

    def __init__(self, file: Path, say: Callable[[str], None], last: float = math.inf):
        self._path, self._say = file, say
        self._waiting: list[tuple[int, bytes]] = []
        kept = [line for step, line in _rows(file) if step <= last]
        disk.write_atomically(file, b"".join(kept))

    def append(self, row: dict) -> None:
        self._waiting.append((row["step"], json.dumps(row).encode() + b"\n"))
        self._write()

    def rewind(self, step: int) -> None:
        """Removes the rows of later steps, which are the last."""
        self._waiting = [row for row in self._waiting if row[0] <= step]
        # Truncating works on a full disk too.
        os.truncate(self._path, sum(len(line) for at, line in _rows(self._path) if at <= step))

    def close(self) -> None:
        if self._waiting:
            self._write()

    def _write(self) -> None:
        content = b"".join(line for _, line in self._waiting)
        try:
            with self._path.open("ab", buffering=0) as file:
                whole = file.seek(0, os.SEEK_END)
                if file.write(content) < len(content):
                    os.ftruncate(file.fileno(), whole)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._say(f"warning: {self._path.name} cannot be written ({error.strerror}): will be retried")
        else:
            self._waiting = []


def _rows(file: Path) -> list[tuple[int, bytes]]:
    """The rows of a log, as bytes to write them back, each with its step. Skips damaged rows, whatever their bytes."""
    rows = []
    for line in file.read_bytes().split(b"\n") if file.exists() else []:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append((row["step"], line + b"\n"))
    return rows
