"""The page's table of classes: how many of the generated examples a classifier assigns to each."""

from typing import Any

import numpy as np

from eval.page.neighbours import Training
from eval.page.runs import Run
from eval.scores import results
from sgflow_jax.display import figures

MOST = 30  # classes that are shown without a click


def table(runs: list[Run], kinds: list[results.Kind], training: Training | str) -> dict[str, Any] | None:
    """A line for each class, by name; a column for each run and number of steps, and the shares in the training data if
    known. None if no row has class counts.

    The rows are those of the first kind that has counts, in the settings of `Run.chosen`, summed over seeds.
    """
    for kind in kinds:
        columns = {title: counts for run in runs for title, counts in _columns(run, kind)}
        if columns:
            return _table(runs, columns, training)
    return None


def _columns(run: Run, kind: results.Kind) -> list[tuple[str, np.ndarray]]:
    found = []
    for steps, rows in run.chosen(kind).items():
        counted = [row.scores.class_counts for row in rows if row.scores.class_counts]
        if counted:
            found.append((f"{run.label}, {figures.in_steps(steps)}", np.sum(counted, axis=0)))
    return found


def _table(runs: list[Run], columns: dict[str, np.ndarray], training: Training | str) -> dict[str, Any]:
    number = max(map(len, columns.values()))
    named = [run.classes for run in runs] + [() if isinstance(training, str) else training.names]
    names = next((each for each in named if len(each) == number), tuple(map(str, range(number))))
    shares = np.zeros(0) if isinstance(training, str) else training.shares
    known = len(shares) == number
    lines = []
    for place, name in enumerate(names):
        cells = [f"{100 * shares[place]:.1f} %"] if known else []
        cells += [f"{counts[place]:,} ({100 * counts[place] / counts.sum():.1f} %)" for counts in columns.values()]
        lines.append((name, cells))
    return {"titles": ["training data"] * known + list(columns), "lines": lines, "open": number <= MOST}
