"""Fetches the results of compiled programs while the devices run the next program."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


def fetch_ahead(dispatched: Iterable[Any]) -> Iterator[Any]:
    """Yields trees of arrays as whole NumPy arrays on every process, in order, each after the next was dispatched.

    dispatched: yields the output of dispatched programs; at most two are held. With several processes each is fetched
    before the next is dispatched, because concurrent programs may deadlock in each other's collectives.
    """
    ahead = 1 if jax.process_count() == 1 else 0
    waiting = []
    for outputs in dispatched:
        waiting.append(outputs)
        if len(waiting) > ahead:
            yield multihost_utils.process_allgather(waiting.pop(0), tiled=True)
    for outputs in waiting:
        yield multihost_utils.process_allgather(outputs, tiled=True)
