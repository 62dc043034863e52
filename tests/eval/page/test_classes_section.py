"""The table of classes, made from made-up rows."""

import dataclasses

import numpy as np

from eval.page import classes_section, runs
from eval.page.neighbours import Training
from eval.scores import class_names, results
from tests.rows import digits_row, finished_run

TRAINING = Training(np.zeros(0), False, 0, 0, np.arange(10) / 45, tuple(f"number {n}" for n in range(10)))


def _table(tmp_path, rows, training="the data are gone", names=()):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        finished_run(folder, rows)
        class_names.write(str(folder), names)
    found = runs.read([str(folder) for folder in folders])
    return classes_section.table(found, runs.common_kinds(found), training)


def test_a_column_for_each_run_and_number_of_steps(tmp_path):
    rows = [digits_row(1, 2.0), digits_row(4, 1.0, seed=3), digits_row(4, 1.0, seed=5)]
    found = _table(tmp_path, rows, TRAINING)
    assert found["titles"] == ["training data", "one, 1 step", "one, 4 steps", "two, 1 step", "two, 4 steps"]
    assert found["lines"][9] == ("number 9", ["20.0 %", *["150 (14.3 %)", "300 (14.3 %)"] * 2])
    assert len(found["lines"]) == 10 and found["open"]


def test_names_that_the_sweep_kept_then_numbers(tmp_path):
    names = tuple(f"kind {n}" for n in range(10))
    for kept, first in ((names[:9], "0"), (names, "kind 0")):
        found = _table(tmp_path, [digits_row(1, 2.0)], names=kept)
        assert found["titles"] == ["one, 1 step", "two, 1 step"] and found["lines"][0][0] == first


def test_no_table_without_counts(tmp_path):
    plain = digits_row(1, 2.0)
    rows = [results.Row(plain.identity, dataclasses.replace(plain.scores, class_counts=None))]
    assert _table(tmp_path, rows, TRAINING) is None
