"""Progress of a long evaluation: what it is doing, how much is done, and how long the rest may take.

Prints a line for each part, and bars, removed when full, if stderr is a terminal. Only the first process prints.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
from tqdm import tqdm

from sgflow_jax import terminal

# Cost of features and scores, in network calls per example, as on digits; only the forecast depends on it.
OVERHEAD = 5


def say(text: str) -> None:
    """Prints text, above the bar if there is one."""
    if jax.process_index() == 0:
        terminal.say(text)


def track(items: Iterable[Any], what: str, total: int, unit: str) -> Iterator[Any]:
    """Yields the items of a long part of the work, `what`, and prints its progress and time.

    total: summed over all items; an item with a length counts as that many. unit: what is counted, like "images".
    """
    say(f"{what}: {total:,} {unit} ...")
    began = time.perf_counter()
    with _bar(desc=what, total=total, unit=f" {unit}", leave=False) as bar:
        for item in items:
            yield item
            bar.update(len(item) if hasattr(item, "__len__") else 1)
    say(f"{what}: done in {time.perf_counter() - began:.0f} s")


class Sampling:
    """The rows of a sweep: a bar if stderr is a terminal, plain lines otherwise.

    work: for each row, its number of examples and of network calls per example: 0 if they are those of another row.
    """

    def __init__(self, work: Sequence[tuple[int, int]]):
        self._rows, self._begun, self._done = len(work), 0, 0
        self._total = sum(_cost(*each) for each in work)
        self._left = self._total
        self._bar = _bar(
            total=self._total,
            smoothing=0,  # forecast from all the past: compilation and scores come in bursts
            leave=False,
            bar_format="{desc}: {percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} to go{postfix}",
        )
        self._began = time.perf_counter()

    def __enter__(self) -> "Sampling":
        say(f"sampling: {self._rows} row{'s' * (self._rows > 1)} ...")
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def begin(self, what: str, rows: int = 1) -> None:
        """Shows `what`, the samples of the next rows in a few words, on the bar."""
        self._begun += rows
        self._bar.set_description_str(f"[{self._begun}/{self._rows}] {what}")

    def advance(self, examples: int, calls: int) -> None:
        """Counts examples that were sampled, each with `calls` network calls."""
        self._bar.update(examples * calls)

    def row(self, what: str, examples: int, calls: int, value: str) -> None:
        """Counts a measured row. value: its distance, shown on the bar only, as the table at the end has them all."""
        self._done += 1
        self._left -= _cost(examples, calls)
        self._bar.update(examples * OVERHEAD)
        self._bar.set_postfix_str(f"last {value}")
        if self._bar.disable:
            seconds = time.perf_counter() - self._began
            left = seconds * self._left / (self._total - self._left)
            say(f"[{self._done}/{self._rows}] {what} ({seconds:.0f} s, about {left:.0f} s to go)")


def _cost(examples: int, calls: int) -> int:
    return examples * (calls + OVERHEAD)


def _bar(**options) -> tqdm:
    return terminal.bar(silent=jax.process_index() != 0, **options)
