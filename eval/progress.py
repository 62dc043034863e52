"""How far a sweep is, and how long the rest may take."""

import time

import jax

from eval import results
from sgflow_jax import terminal

# What features and scores cost, in network calls an example, as on digits; only the forecast depends on it.
OVERHEAD = 5


def _work(identity: results.Identity) -> int:
    return identity.num_samples * (identity.steps + OVERHEAD)


class Progress:
    """A bar in network calls an example where the terminal is one; a line a row. Silent on all processes but one."""

    def __init__(self, identities: list[results.Identity]):
        self._rows, self._done = len(identities), 0
        silent = bool(jax.process_index())
        calls = sum(identity.num_samples * identity.steps for identity in identities)
        self._bar = terminal.bar(total=calls, unit="call", unit_scale=True, silent=silent)
        self._whole = self._left = sum(map(_work, identities))
        self._began = time.perf_counter()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def advance(self, calls: int) -> None:
        """calls: network calls an example, summed over examples."""
        self._bar.update(calls)

    def row(self, workdir: str, row: results.Row) -> None:
        """Says what was measured, and how long the rest may take."""
        self._done += 1
        self._left -= _work(row.identity)
        seconds = time.perf_counter() - self._began
        left = seconds * self._left / (self._whole - self._left)
        timing = f"{seconds:.0f} s, about {left:.0f} s to go"
        terminal.say(f"[{self._done}/{self._rows}] {workdir}, {results.describe(row)} ({timing})")
