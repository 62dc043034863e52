"""How far a sweep is, and how long the rest may take."""

import sys
import time

import jax
from tqdm import tqdm

from eval import results


class Progress:
    """A bar in network calls an example where the terminal is one; a line a row. Silent on all processes but one."""

    def __init__(self, identities: list[results.Identity]):
        self._rows, self._done = len(identities), 0
        silent = bool(jax.process_index())
        calls = sum(identity.num_samples * identity.steps for identity in identities)
        self._bar = tqdm(total=calls, unit="call", unit_scale=True, disable=silent or not sys.stderr.isatty())
        self._left, self._began = calls, time.perf_counter()
        self._calls = calls

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def advance(self, calls: int) -> None:
        """calls: network calls an example, summed over examples."""
        self._bar.update(calls)
        self._left -= calls

    def row(self, workdir: str, row: results.Row) -> None:
        """Says what was measured, and how long the rest may take."""
        self._done += 1
        seconds = time.perf_counter() - self._began
        left = seconds * self._left / (self._calls - self._left)
        timing = f"{seconds:.0f} s, about {left:.0f} s to go"
        tqdm.write(f"[{self._done}/{self._rows}] {workdir}, {results.describe(row)} ({timing})", file=sys.stdout)
