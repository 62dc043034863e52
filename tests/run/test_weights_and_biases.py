"""Weights & Biases, with a stand-in for its package that keeps what it is given."""

import sys
import types

import ml_collections
import numpy as np
import pytest

from sgflow_jax import trainer
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import weights_and_biases
from sgflow_jax.run.metric_log import MetricLog
from tests import tiny

PICTURE = np.zeros((4, 4, 3), np.uint8)


class _Run:
    """A run of the package. logged: (step, values); kept: its configuration; code: of its end."""

    def __init__(self, **options):
        self.options, self.logged, self.kept, self.code = options, [], {}, None
        self.resumed, self.offline, self.name = False, True, None
        self.dir = f"{options['dir']}/wandb/offline-1/files"
        self.config = types.SimpleNamespace(update=self._update)

    def _update(self, values, allow_val_change):
        assert allow_val_change
        self.kept |= values

    def log(self, values, step):
        assert not self.logged or step >= self.logged[-1][0]  # else the package drops them
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.code = exit_code


@pytest.fixture
def runs(monkeypatch):
    """The runs that were begun, in order."""
    begun = []

    def init(**options):
        begun.append(_Run(**options))
        return begun[-1]

    fake = types.SimpleNamespace(init=init, Settings=dict, Image=lambda picture: picture.shape)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return begun


def _loss(step):
    return {"loss": 1.0 / step}


def test_a_directory_is_one_run_whose_steps_only_increase(runs, tmp_path, capsys):
    config = ml_collections.ConfigDict({"eval": {"steps": (1, 4)}})
    with MetricLog(str(tmp_path), 0, 10, "mine") as log:
        log.event("start", 0, "started")
        log.describe(config, "a table")
        for step in (2, 4, 6):
            log.scalars(step, _loss(step))
        log.preview(6, PICTURE)
        log.rewind(2)
        for step in (4, 6, 8):
            log.scalars(step, {"loss": 0.0})
            log.preview(step, PICTURE)
    with pytest.raises(ZeroDivisionError), MetricLog(str(tmp_path), 4, 10, "mine") as log:
        log.event("start", 4, "started again")
        log.describe(config, "a table")
        for step in (6, 8, 10):
            log.scalars(step, _loss(step))
        raise ZeroDivisionError
    first, second = runs
    preview = {"preview": (4, 4, 3)}
    before = [(2, _loss(2)), (4, _loss(4)), (6, _loss(6)), (6, preview)]
    assert first.logged == [*before, (8, {"loss": 0.0}), (8, preview)]
    assert second.logged == [(10, _loss(10))]
    assert first.kept == {"eval": {"steps": [1, 4]}} and first.name == tmp_path.name
    assert first.options["id"] == second.options["id"] and first.options["resume"] == "allow"
    assert (first.options["project"], first.options["dir"]) == ("mine", str(tmp_path))
    assert (first.code, second.code) == (0, 1)
    assert f"Weights & Biases: offline; wandb sync {tmp_path}/wandb/offline-1 sends it" in capsys.readouterr().out


def test_a_fault_costs_one_warning(runs, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError("no\nnetwork")

    monkeypatch.setattr(_Run, "log", fail)
    with MetricLog(str(tmp_path), 0, 10, "mine") as log:
        log.event("start", 0, "started")
        for step in (2, 4):
            log.scalars(step, _loss(step))
            log.preview(step, PICTURE)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2 and len(runs) == 1
    assert capsys.readouterr().out.count("Weights & Biases shows no more of this run (no network)") == 1


def test_training_shows_its_log_there(runs, tmp_path):
    config = tiny.mixture(num_steps=2)
    config.log.wandb = "mine"
    trainer.train(config, str(tmp_path))
    (run,) = runs
    assert [step for step, _ in run.logged] == [2] and run.logged[0][1]["loss"] > 0
    assert run.kept["objective"]["name"] == "sgflow" and run.code == 0


@pytest.mark.parametrize(
    "project, package, match",
    [
        ("mine", None, "wandb cannot be imported: pip install .wandb>=0.31., or give --config.log.wandb= for"),
        ("mine", types.ModuleType("wandb"), "wandb cannot be imported"),  # a folder of that name
        ("me/mine", None, "use the name of a project"),
    ],
)
def test_what_is_refused_before_anything_is_written(project, package, match, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", package)
    config = tiny.mixture(num_steps=2)
    config.log.wandb = project
    with pytest.raises(InputError, match=match):
        trainer.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    weights_and_biases.check("")
