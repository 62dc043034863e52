"""Averages over seeds: those of the noise of one network, and those of runs that differ in the seed alone."""

from collections import defaultdict

import numpy as np

from eval.scores.results import Row


def _by_network(rows: list[Row]) -> list[float]:
    """The value of each network: its mean over the seeds of the noise."""
    values = defaultdict(list)
    for row in rows:
        values[row.identity.network].append(row.scores.value)
    return [float(np.mean(each)) for each in values.values()]


def count(rows: list[Row]) -> int:
    """The number of networks that were measured."""
    return len({row.identity.network for row in rows})


def of_one_set(by_calls: dict[int, list[Row]]) -> dict[int, list[Row]]:
    """Rows of one set of networks at every number of calls, so that the ends of a curve are of the same seeds: of the
    largest set that shares a number of calls, at all those that it shares. by_calls: as for `band`, at least one row.
    """
    having = {calls: {row.identity.network for row in rows} for calls, rows in by_calls.items()}
    kept = max(having.values(), key=lambda networks: (len(networks), sum(networks <= each for each in having.values())))
    return {
        calls: [row for row in rows if row.identity.network in kept]
        for calls, rows in by_calls.items()
        if kept <= having[calls]
    }


def titled(label: str, number: int) -> str:
    """The name of a line or column with the number of runs that it is the mean of, if several."""
    return f"{label}, {number} seeds" if number > 1 else label


def band(rows: list[Row]) -> tuple[float, float, float]:
    """The mean over networks, and the ends of a band. rows: that differ in the network and the seed alone.

    The band is the range over networks; of one network over its seeds; of one row its standard error to either side.
    """
    values = _by_network(rows)
    ends = values if len(values) > 1 else [row.scores.value for row in rows]
    error = rows[0].scores.value_error or 0.0 if len(rows) == 1 else 0.0
    return float(np.mean(values)), min(ends) - error, max(ends) + error


def mean_and_spread(rows: list[Row]) -> tuple[float, float | None]:
    """The mean of `band` and half of its width; None for one row without a standard error."""
    mean, low, high = band(rows)
    return mean, None if len(rows) == 1 and rows[0].scores.value_error is None else (high - low) / 2
