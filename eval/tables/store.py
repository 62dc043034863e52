"""Tables that are measured row by row: each row is a file, so a run that was stopped goes on, and rows can run apart.

A row is identified by a dictionary of plain values, its settings; measuring gives another. Both are in its file.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from sgflow_jax import cli, terminal
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError

Settings = dict[str, Any]
Row = dict[str, Any]


class Range(NamedTuple):
    """Numbers that a setting may be, as the bounds of a flag."""

    least: float
    most: float
    kind: type = int


# What a setting may be: of a type, one of some choices, or a number in a range.
Allowed = dict[str, type | tuple[str, ...] | Range]


@dataclasses.dataclass(frozen=True)
class Store:
    """The rows under a directory."""

    folder: Path

    def find(self, settings: Settings) -> Row | None:
        """The row measured with exactly these settings: both dictionaries in one; None if there is none."""
        file = self._file(settings)
        return _read(file) if file.exists() else None

    def every(self) -> list[Row]:
        """All rows that are there."""
        return [_read(file) for file in sorted((self.folder / "rows").glob("*.json"))]

    def write(self, settings: Settings, values: Row) -> None:
        """Keeps a row."""
        disk.write_atomically(self._file(settings), json.dumps({**settings, **values}, indent=1) + "\n")

    def _file(self, settings: Settings) -> Path:
        return self.folder / "rows" / f"{_name(settings)}.json"


def _read(file: Path) -> Row:
    try:
        return disk.from_json(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged: remove it, and the row is measured again") from error


def _name(settings: Settings) -> str:
    """A name for files of a row, which no other row has."""
    text = json.dumps(settings, sort_keys=True)
    name = "-".join(str(value) for value in settings.values() if isinstance(value, str))
    readable = "".join(c if c.isalnum() or c in "-=._" else "_" for c in name)[:80]
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@contextlib.contextmanager
def fresh_workdir(folder: Path, settings: Settings) -> Iterator[str]:
    """The directory of a row's training run, empty at the start, even if an earlier attempt was stopped; gone after."""
    workdir = folder / "runs" / _name(settings)
    shutil.rmtree(workdir, ignore_errors=True)
    try:
        yield str(workdir)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def complete(
    store: Store, wanted: list[Settings], measure: Callable[[Settings], Row], module: str, processes: int
) -> list[Row]:
    """All wanted rows, in order; those the store lacks are measured first.

    processes: 0 measures here. Otherwise each row has a process of its own, `python -m module --row=SETTINGS`, this
    many at a time.
    """
    missing = [settings for settings in wanted if store.find(settings) is None]
    began = time.perf_counter()

    faults = []

    def one(settings: Settings) -> None:
        if processes:
            try:
                _apart(store, settings, module)
            except InputError as error:
                faults.append(str(error))  # the others can be measured
        else:
            store.write(settings, measure(settings))
        done = sum(store.find(s) is not None for s in missing)
        seconds = time.perf_counter() - began
        name = ", ".join(f"{k} {v}" for k, v in settings.items())
        left = seconds / max(done, 1) * (len(missing) - done)
        terminal.say(f"[{done}/{len(missing)}] {name} ({seconds:.0f} s, about {left:.0f} s to go)")

    with ThreadPoolExecutor(max(processes, 1)) as pool:
        for _ in pool.map(one, missing):
            pass
    if faults:
        raise InputError("; ".join(faults))
    return [store.find(settings) for settings in wanted]


def _apart(store: Store, settings: Settings, module: str) -> None:
    command = [sys.executable, "-m", module, f"--out={store.folder}", f"--row={json.dumps(settings)}"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the row {json.dumps(settings)} failed ({last}): run it alone with --row to see all of it")


def from_command(
    module: str,
    allowed: Allowed,
    wanted: Callable[[], list[Settings]],
    measure: Callable[[Settings], Row],
    alone: Callable[[Settings], bool] = lambda settings: False,
) -> list[Row] | None:
    """What the flags ask for: the rows `wanted`, or None when it was to measure the one of --row (see `from_flag`).

    alone: whether a row is measured while no other is, after those that are not.
    """
    given = flags.FLAGS
    store = Store(Path(given.out))
    disk.check_writable(store.folder / "rows" / "row.json")
    if given.row:
        settings = from_flag(given.row, allowed)
        store.write(settings, measure(settings))
        return None
    settings = wanted()
    for chosen, processes in ((False, given.processes), (True, min(given.processes, 1))):
        complete(store, [each for each in settings if alone(each) == chosen], measure, module, processes)
    return [store.find(each) for each in settings]


def define_flags(out: str) -> None:
    """The flags of a command whose table is measured row by row; out: its default directory."""
    cli.define_path("out", out, "Directory of the rows and of what is made from them.")
    flags.DEFINE_integer("processes", 0, "Rows measured at a time, each in a process of its own; 0: here.", 0, 64)
    flags.DEFINE_string("row", None, "Measure this row alone: its settings as JSON.")


def from_flag(text: str, allowed: Allowed) -> Settings:
    """The settings given by --row: exactly the names of `allowed`, each what it may be.

    What else a row's file holds is left out. InputError if something is missing or wrong.
    """
    try:
        given = disk.from_json(text)
    except ValueError as error:
        raise InputError(f"--row={text} is not JSON ({error}): copy what a file under rows/ begins with") from error
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


def markdown(columns: dict[str, Callable[[Row], str]], rows: list[Row]) -> str:
    """A Markdown table: a column for each title, whose function makes the cell from the row."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row) for cell in columns.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"
