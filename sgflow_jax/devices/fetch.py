"""What compiled programs give, fetched while the devices go on with the next."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


def fetched(started: Iterable[Any]) -> Iterator[Any]:
    """Yields trees of arrays as NumPy arrays, in order and whole on every process, each once the next is started.

    started: yields the arrays of programs that were dispatched; at most two are held at a time. With several processes
    each is fetched before the next is started: programs that run at once may wait for each other's collectives.
    """
    ahead = 1 if jax.process_count() == 1 else 0
    waiting = []
    for made in started:
        waiting.append(made)
        if len(waiting) > ahead:
            yield multihost_utils.process_allgather(waiting.pop(0), tiled=True)
    for made in waiting:
        yield multihost_utils.process_allgather(made, tiled=True)
