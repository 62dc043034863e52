"""Where a run's numbers go: metrics.jsonl, TensorBoard, and the terminal; and what happened to it, to events.jsonl."""

import contextlib
import datetime
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sgflow_jax import figures, terminal
from sgflow_jax import workdir as paths
from sgflow_jax.interfaces import InputError
from sgflow_jax.tensorboard import Board


class MetricLog:
    """The log of one run. Use as a context manager.

    start: the step the run (re)starts from; later lines, left by a run that was killed after its last checkpoint, go.
    total: the step it runs to. A progress bar where the terminal is one, plain lines otherwise. What cannot be written,
    on a full disk, is kept and tried again with the next line.
    """

    def __init__(self, workdir: str, start: int, total: int):
        self._workdir, self._total = workdir, total
        self._metrics = _Lines(paths.metrics_file(workdir), self.say, start)
        self._events = _Lines(paths.events_file(workdir), self.say)
        self._board: Board | None = None
        self._purge = start + 1
        self._bar = self._new_bar(start)

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *_) -> None:
        if self._bar:
            self._bar.close()
        self._to_board(Board.close)
        self._metrics.close()
        self._events.close()

    def advance(self, steps: int) -> None:
        """Moves the progress bar."""
        if self._bar:
            self._bar.update(steps)

    def rewind(self, step: int) -> None:
        """Forgets what was logged of later steps, which are to come again."""
        self._metrics.rewind(step)
        self._to_board(Board.close)
        self._board, self._purge = None, step + 1
        if self._bar:
            self._bar.close()
        self._bar = self._new_bar(step)

    def say(self, line: str) -> None:
        """Prints a line without breaking the progress bar."""
        terminal.say(line)

    def event(self, kind: str, step: int, line: str) -> None:
        """Prints a line, and keeps it in events.jsonl, which is never shortened."""
        self.say(line)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._events.append({"time": now, "event": kind, "step": step, "what": line})

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the numbers of one step everywhere."""
        self._metrics.append({"step": step, **values})
        self._to_board(lambda board: board.scalars(step, values))
        if self._bar:
            speed = f", {values['images_per_second']:.0f} images/s" if "images_per_second" in values else ""
            self._bar.set_postfix_str(f"loss {values['loss']:.4g}{speed}")
        else:
            self.say(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def preview(self, step: int, picture: np.ndarray) -> None:
        """Writes a picture uint8 [h, w, 3] as previews/step_N.png and to TensorBoard."""
        try:
            paths.write_atomically(paths.preview_file(self._workdir, step), figures.png(picture))
        except InputError as error:
            self.say(f"no preview of step {step}: {error}")
        self._to_board(lambda board: board.image(step, picture))

    def _new_bar(self, step: int) -> tqdm | None:
        bar = terminal.bar(initial=step, total=self._total, unit="step")
        return None if bar.disable else bar

    def _to_board(self, write) -> None:
        """TensorBoard has what metrics.jsonl has: what cannot be written is left out, and the next gets a new file."""
        try:
            self._board = self._board or Board(paths.tensorboard(self._workdir), self._purge)
            write(self._board)
        except Exception:  # a third party's, of any kind: no reason for a run to end
            self._board = None


class NoLog:
    """A `MetricLog` that says and writes nothing: for the processes of a run that are not its first."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_) -> None: ...

    def advance(self, steps: int) -> None: ...

    def rewind(self, step: int) -> None: ...

    def say(self, line: str) -> None: ...

    def event(self, kind: str, step: int, line: str) -> None: ...

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def preview(self, step: int, picture: np.ndarray) -> None: ...


class _Lines:
    """A file of JSON objects, one a line, each with a "step". What a kill left of half a line goes at the start, as do
    rows of steps after `last`. say: told when it cannot be written."""

    def __init__(self, file: Path, say: Callable[[str], None], last: float = math.inf):
        self._path, self._say = file, say
        self._waiting: list[tuple[int, bytes]] = []
        kept = [line for step, line in _rows(file) if step <= last]
        paths.write_atomically(file, b"".join(kept))

    def append(self, row: dict) -> None:
        self._waiting.append((row["step"], json.dumps(row).encode() + b"\n"))
        self._write()

    def rewind(self, step: int) -> None:
        """Drops the rows of later steps, which are the last."""
        self._waiting = [row for row in self._waiting if row[0] <= step]
        # Cut off, which a full disk allows.
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
            self._say(f"warning: {self._path.name} cannot be written ({error.strerror}): kept for later")
        else:
            self._waiting = []


def _rows(file: Path) -> list[tuple[int, bytes]]:
    """The rows of a log, each with its step; without damaged ones."""
    rows = []
    for line in file.read_bytes().split(b"\n") if file.exists() else []:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append((row["step"], line + b"\n"))
    return rows
