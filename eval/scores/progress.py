"""What a long evaluation is doing, how far it is, and how long the rest may take.

Where stderr is a terminal, bars that go when they are full; a line for each phase everywhere. Only the first process
tells anything.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
from tqdm import tqdm

from sgflow_jax import terminal

# What features and scores cost, in network calls an example, as on digits; only the forecast depends on it.
OVERHEAD = 5


def say(text: str) -> None:
    """Prints a line, or several, above the bar if there is one."""
    if jax.process_index() == 0:
        terminal.say(text)


def phase(items: Iterable[Any], what: str, total: int, unit: str) -> Iterator[Any]:
    """Yields the items of a part of the work that may take long, and says what it is and what it took.

    total: of all items; an item that has a length counts as so many. unit: what is counted, as "images".
    """
    say(f"{what}: {total:,} {unit} ...")
    began = time.perf_counter()
    with _bar(desc=what, total=total, unit=f" {unit}", leave=False) as bar:
        for item in items:
            yield item
            bar.update(len(item) if hasattr(item, "__len__") else 1)
    say(f"{what}: done in {time.perf_counter() - began:.0f} s")


class Sampling:
    """The rows of a sweep: a bar where the terminal is one, plain lines otherwise.

    work: for each row, the number of its examples and the network calls that each takes.
    """

    def __init__(self, work: Sequence[tuple[int, int]]):
        self._rows, self._begun, self._done = len(work), 0, 0
        self._whole = sum(_cost(*each) for each in work)
        self._left = self._whole
        self._bar = _bar(
            total=self._whole,
            smoothing=0,  # the forecast from all there was, as compilation and scores come in bursts
            leave=False,
            bar_format="{desc}: {percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} to go{postfix}",
        )
        self._began = time.perf_counter()

    def __enter__(self) -> "Sampling":
        say(f"sampling: {self._rows} row{'s' * (self._rows > 1)} ...")
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def begin(self, what: str) -> None:
        """what: the row that is sampled next, in few words, which the bar shows."""
        self._begun += 1
        self._bar.set_description_str(f"[{self._begun}/{self._rows}] {what}")

    def advance(self, examples: int, calls: int) -> None:
        """So many examples more were sampled, with so many network calls each."""
        self._bar.update(examples * calls)

    def row(self, what: str, examples: int, calls: int, value: str) -> None:
        """A row is measured. value: its distance, which only the bar shows: the table at the end has all of them."""
        self._done += 1
        self._left -= _cost(examples, calls)
        self._bar.update(examples * OVERHEAD)
        self._bar.set_postfix_str(f"last {value}")
        if self._bar.disable:
            seconds = time.perf_counter() - self._began
            left = seconds * self._left / (self._whole - self._left)
            say(f"[{self._done}/{self._rows}] {what} ({seconds:.0f} s, about {left:.0f} s to go)")


def _cost(examples: int, calls: int) -> int:
    return examples * (calls + OVERHEAD)


def _bar(**options) -> tqdm:
    return terminal.bar(silent=jax.process_index() != 0, **options)
