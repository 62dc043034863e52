"""Tables measured row by row. Each row is a file, so an interrupted table resumes and rows can run in parallel.

A row is identified by its settings, a dictionary of plain values. Measuring it gives more values; the file has both,
and the version of sgflow_jax that measured it.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from sgflow_jax import __version__, cli, terminal
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

Settings = dict[str, Any]
Values = dict[str, Any]  # what was measured; of a whole row: its settings too


class Range(NamedTuple):
    """The numbers from least to most."""

    least: float
    most: float
    kind: type = int


_PARENT = "SGFLOW_ROW_PARENT"  # process id of the command that measures a row in a process of its own
_WATCH_SECONDS = 0.5
# The valid values of each setting: those of a type, some choices, or a range.
Allowed = dict[str, type | tuple[str, ...] | Range]


@dataclasses.dataclass(frozen=True)
class Store:
    """The rows under a directory."""

    folder: Path

    def find(self, settings: Settings) -> Values | None:
        """The row with exactly these settings; None if it has not been measured."""
        file = self._file(settings)
        return _read(file) if file.exists() else None

    def every(self) -> list[Values]:
        """All measured rows."""
        return [_read(file) for file in sorted((self.folder / "rows").glob("*.json"))]

    def write(self, settings: Settings, values: Values) -> None:
        row = {**settings, **values, "sgflow_jax": __version__}
        disk.write_atomically(self._file(settings), json.dumps(row, indent=1) + "\n")

    def _file(self, settings: Settings) -> Path:
        return self.folder / "rows" / f"{name(settings)}.json"


def _read(file: Path) -> Values:
    try:
        return disk.from_json(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged: remove it to measure the row again") from error


def name(settings: Settings) -> str:
    """A unique file name for a row."""
    text = json.dumps(settings, sort_keys=True)
    name = "-".join(str(value) for value in settings.values() if isinstance(value, str))
    readable = "".join(c if c.isalnum() or c in "-=._" else "_" for c in name)[:80]
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def fresh_workdir(folder: Path, settings: Settings) -> Iterator[str]:
    """The directory of a row's training run: emptied before (an earlier attempt may have died), removed after."""
    workdir = folder / "runs" / name(settings)
    shutil.rmtree(workdir, ignore_errors=True)
    try:
        yield str(workdir)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def complete(
    store: Store,
    wanted: list[Settings],
    measure: Callable[[Settings], Values],
    module: str,
    processes: int,
    arguments: Sequence[str] = (),
) -> list[Values]:
    """Measures the wanted rows that the store lacks, and returns all of them in order.

    processes: 0 measures in this process. Otherwise each row has its own, `python -m module ARGUMENTS --row=SETTINGS`,
    and this many run at a time. They end with this process; what they print goes to DIR/logs.
    """
    missing = [settings for settings in wanted if store.find(settings) is None]
    began, count, faults = time.perf_counter(), itertools.count(1), []

    def one(settings: Settings) -> None:
        try:
            if processes:
                _measure_in_a_process(store, settings, module, arguments)
            else:
                store.write(settings, measure(settings))
        except InputError as error:
            if not processes:
                raise
            faults.append(str(error))  # the other rows are still measured
            return
        done, seconds = next(count), time.perf_counter() - began
        told = ", ".join(f"{k} {v}" for k, v in settings.items() if v not in ("", "{}"))
        left = seconds / done * (len(missing) - done)
        terminal.say(f"[{done}/{len(missing)}] {told} ({seconds:.0f} s, about {left:.0f} s left)")

    if not processes:
        for settings in missing:  # in this thread, the only one that signals reach
            one(settings)
    else:
        with ThreadPoolExecutor(processes) as pool:
            for _ in pool.map(one, missing):
                pass
    if faults:
        raise InputError("; ".join(faults))
    return [store.find(settings) for settings in wanted]


def _measure_in_a_process(store: Store, settings: Settings, module: str, arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", module, *arguments, f"--out={store.folder}", f"--row={json.dumps(settings)}"]
    log = store.folder / "logs" / f"{name(settings)}.log"
    disk.make_directory(log.parent)
    with log.open("w") as printed:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, _PARENT: str(os.getpid())},
        )
    if ended.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the row {json.dumps(settings)} failed ({last}): its whole output is in {log}")


def _end_with_parent() -> None:
    """Ends this process soon after the one that started it for a row: a second command must find the row free."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch():
        while str(os.getppid()) == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def from_command(
    module: str,
    allowed: Allowed,
    wanted: Callable[[], list[Settings]],
    measure: Callable[[Settings], Values],
    alone: Callable[[Settings], bool] = lambda settings: False,
    arguments: Sequence[str] = (),
) -> list[Values] | None:
    """The `wanted` rows, measured where missing; with --row, measures that row only and returns None.

    alone: whether nothing else may run while a row is measured. Such rows come last. arguments: see `complete`.
    """
    given = flags.FLAGS
    store = Store(Path(given.out))
    disk.check_writable(store.folder / "rows" / "row.json")
    if given.row:
        _end_with_parent()
        settings = from_flag(given.row, allowed)
        store.write(settings, measure(settings))
        return None
    settings = wanted()
    for chosen, processes in ((False, given.processes), (True, min(given.processes, 1))):
        complete(store, [each for each in settings if alone(each) == chosen], measure, module, processes, arguments)
    return [store.find(each) for each in settings]


def define_flags(out: str) -> None:
    """The flags of a command that measures row by row. out: its default directory."""
    cli.define_path("out", out, "Directory for the rows and the results.")
    flags.DEFINE_integer("processes", 0, "Rows measured at a time, each in its own process; 0: in this one.", 0, 64)
    flags.DEFINE_string("row", None, "Measure this row only: its settings as JSON.")


def from_flag(text: str, allowed: Allowed) -> Settings:
    """The settings in --row; other values, which a row's file has too, are dropped. InputError for a missing or invalid
    one."""
    try:
        given = disk.from_json(text)
    except ValueError as error:
        raise InputError(f"--row={text} is not JSON ({error}): copy the settings from a file under rows/") from error
    for name, kind in allowed.items():
        value = given.get(name) if isinstance(given, dict) else None
        if isinstance(value, bool) or not _fits(value, kind):
            raise InputError(f"--row={text}: {name} is {value!r}; use {_described(kind)}")
    return {name: given[name] for name in allowed}


def _fits(value: Any, kind: type | tuple[str, ...] | Range) -> bool:
    if isinstance(kind, Range):
        return _fits(value, kind.kind) and kind.least <= value <= kind.most
    return value in kind if isinstance(kind, tuple) else isinstance(value, int | float if kind is float else kind)


def _described(kind: type | tuple[str, ...] | Range) -> str:
    if isinstance(kind, Range):
        return f"{_described(kind.kind)} from {kind.least} to {kind.most}"
    return " or ".join(kind) if isinstance(kind, tuple) else f"a value of type {kind.__name__}"


def markdown(columns: dict[str, Callable[[Values], str]], rows: list[Values]) -> str:
    """A Markdown table. columns: for each title, the function that makes the cell of a row."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row) for cell in columns.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"
