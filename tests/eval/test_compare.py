"""A comparison from flags to files, on tiny runs."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval import compare, features
from eval.comparison import budget, floor, summary, sweeps, training
from eval.tables import store
from sgflow_jax import trainer
from sgflow_jax.interfaces import InputError
from tests import own_images
from tests.commands import wait_until

CONFIG = """
from tests import tiny

def get_config(objective="sgflow"):
    config = tiny.mixture(objective, 8)
    config.optim.b1 = 0.8
    return config.lock()
"""


@pytest.fixture
def comparison(tmp_path):
    file = tmp_path / "small.py"
    file.write_text(CONFIG)
    return compare.Comparison(
        path=str(file),
        changes={"optim.learning_rate": 1e-3},
        objectives=("mean_flow",),
        seeds=(0, 1),
        budget=budget.Budget("steps", 8.0),
        first=0.0,
        what=sweeps.Measure("pixels", 100, (1, 2), (1,)),
        out=tmp_path / "out",
    )


def _measured(comparison):
    return store.complete(store.Store(comparison.out), comparison.wanted(), comparison.measure, "unused", 0)


def test_a_comparison_from_runs_to_files(comparison, monkeypatch):
    rows = _measured(comparison)
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert row["num_steps"] == 8 and row["images"] == 128 and row["flops"] > 0 and not row["faults"]
        assert row["fields"]["optim.learning_rate"] == 1e-3 and row["fields"]["seed" if row["seed"] else "data.name"]
        # In 1 and 2 steps by its own method and by Euler's on the diagonal, and in 1 step after three shares.
        where = sorted((each["method"], each["steps"], each["share"]) for each in row["distances"])
        ends = [(method, steps, 1.0) for method in ("euler", "flow_map") for steps in (1, 2)]
        assert where == sorted(ends + [("flow_map", 1, share) for share in (0.125, 0.25, 0.5)])

    pixels = features.make("pixels")
    real = floor.measured(comparison.base("mean_flow"), pixels, 100, comparison.out)
    assert real["halves"] > 0 and real["counts"]["train"] == 100
    comparison.check_features(rows, summary.Identity.of(real))
    other = summary.Identity.of(real)._replace(data="digits", fingerprint="f")  # in the same directory
    assert floor.known(summary.Identity.of(real), 100, comparison.out) == real
    assert floor.known(other, 100, comparison.out) is None
    compare.write(comparison, rows)
    text = (comparison.out / "comparison.md").read_text()
    assert "| mean_flow | " in text and "## Best at each number of steps" in text and "steps:8" in text
    told = json.loads((comparison.out / "comparison.json").read_text())
    assert len(told["runs"]) == 2 and told["real"]["halves"] == real["halves"]
    for name in ("curves.png", "diagonals.png", "learning.png"):
        assert (comparison.out / name).read_bytes()[:4] == b"\x89PNG"
    assert "mean_flow, 2 seeds" in (comparison.out / "page" / "index.html").read_text()

    assert comparison.so_far() == rows
    assert dataclasses.replace(comparison, seeds=(1, 2)).so_far() == rows[1:]
    with pytest.raises(InputError, match="has no row of this comparison"):
        dataclasses.replace(comparison, seeds=(2,)).so_far()

    # Rows of a classifier that was trained again: its distances must be the same.
    again = [rows[0], {**rows[1], "distances": [{**each, "weights": "abc"} for each in rows[1]["distances"]]}]
    for halves, fine in ((1 + 1e-6, True), (1.1, False)):
        found = real | {"weights": "abc", "halves": halves * real["halves"]}
        store.Store(comparison.out / "real").write({"weights": "abc"}, found)
        if fine:
            comparison.check_features(again)
            continue
        with pytest.raises(InputError, match="pixels and pixels of weights abc, which do not compare: use another"):
            comparison.check_features(again)
    with pytest.raises(InputError, match="pixels and pixels of weights d, which"):
        comparison.check_features(rows, summary.Identity.of(real)._replace(weights="d"))

    # A row that is lost is swept, but not trained, again, and is the same to the bit.
    lost = rows[0]
    store.Store(comparison.out)._file(comparison.wanted()[0]).unlink()
    monkeypatch.setattr(trainer._Run, "_compiled", None)
    again = _measured(comparison)[0]
    assert again["distances"] == lost["distances"] and again["flops"] == lost["flops"]

    Path(comparison.path).write_text(CONFIG.replace("0.8", "0.7"))
    with pytest.raises(InputError, match=r"another configuration \(optim.b1 was 0.8, and is now 0.7\)"):
        comparison.wanted()


def test_a_run_may_begin_with_flow_matching(comparison):
    started = dataclasses.replace(comparison, seeds=(0,), first=0.5, budget=budget.Budget("steps", 16.0))
    started = dataclasses.replace(started, what=sweeps.Measure("pixels", 100, (1,), (1,)))
    (row,) = _measured(started)
    assert row["num_steps"] == 16 and row["last_steps"] == 8
    compare.write(started, [{**row, "distances": [each for each in row["distances"] if each["share"] == 1]}])
    assert not (started.out / "learning.png").exists()  # as with --curve=
    (group,) = summary.groups([row])
    assert group.name == "mean_flow after flow_matching (0.5)"
    begun = json.loads((Path(started.workdir(row)) / "config.json").read_text())["train"]["init_from"]
    assert begun.endswith("-first@8")


def test_fields_that_follow_from_the_data_are_filled_in(tmp_path):
    """As in configs/images.py: levels by the size of the images, a label for each folder."""
    own_images.numbered(tmp_path / "photos", ["cat/1.png", "dog/2.png"])
    changes = {"data.dir": str(tmp_path / "photos"), "data.size": 16, "data.batch_size": 8}
    what = sweeps.Measure("pixels", 100, (1,), ())
    asked = compare.Comparison(
        "configs/images.py", changes, ("esd",), (0,), budget.Budget("steps", 8), 0.0, what, tmp_path / "out"
    )
    asked.check()
    config = training.config_of(asked.base, "esd", 0, 8)
    assert config.model.num_classes == 2 and config.model.channel_mult != (-1,)


def test_divergence_is_a_row(comparison, monkeypatch):
    def diverge(*_):
        raise trainer.Stopped("the loss is not finite")

    monkeypatch.setattr(trainer, "train", diverge)
    rows = _measured(dataclasses.replace(comparison, seeds=(0,)))
    chosen = summary.groups(rows)
    assert [group.diverged for group in chosen] == [[0]] and not summary.at(chosen, 1)
    compare.write(comparison, rows)
    assert "seed 0: the loss is not finite" in (comparison.out / "comparison.md").read_text()
    assert not (comparison.out / "curves.png").exists()


def test_a_row_given_by_hand_must_list_numbers():
    with pytest.raises(InputError, match="--calls=1,x: use integers from 1"):
        sweeps.Measure.of({"features": "pixels", "num_samples": 100, "calls": "1,x", "curve": ""})


def test_equal_time_gives_every_seed_the_same_number_of_steps(comparison, monkeypatch):
    monkeypatch.setattr(training, "TRIAL_STEPS", 8)
    timed = budget.Budget("seconds", 2.0)
    measured = []
    monkeypatch.setattr(training.speed, "steps_per_second", lambda *_: measured.append(1) or 10.0 + len(measured))
    steps = [training._num_steps(comparison.base, "flow_matching", timed, comparison.out) for _ in range(2)]
    assert steps == [16, 16] and len(measured) == 1  # 22 steps, in whole eighths
    other = dataclasses.replace(comparison, changes={"data.batch_size": 32})  # another speed
    assert training._num_steps(other.base, "flow_matching", timed, comparison.out) == 24 and len(measured) == 2


PARENT = """
import sys, pathlib
from eval.tables import store
store.complete(store.Store(pathlib.Path(sys.argv[1])), [{"objective": "a"}], None, "slow_row", 1)
"""
CHILD = """
import os, pathlib, sys, time
from eval.tables import store
store._end_with_parent()
pathlib.Path(os.environ["BEGUN"]).write_text(str(os.getpid()))
time.sleep(90)  # longer than the test waits for its end
"""


def test_the_process_of_a_row_ends_with_its_command(tmp_path):
    (tmp_path / "slow_row.py").write_text(CHILD)
    begun = tmp_path / "begun"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], env={**os.environ, "PYTHONPATH": path, "BEGUN": str(begun)}
    )
    wait_until(lambda: begun.exists() and begun.read_text(), 60)
    child = int(begun.read_text())
    command.kill()
    command.wait()
    wait_until(lambda: not _runs(child))
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False
