"""Checkpoints that cannot be saved, were half written, or are kept for good; and disks that are full."""

import shutil
import time

import orbax.checkpoint as ocp
import pytest

from sgflow_jax import trainer
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import integrity
from tests import tiny, workdirs


@pytest.mark.parametrize("error", [TypeError, AssertionError, KeyError, RuntimeError])
def test_a_store_that_cannot_be_read_again_is_refused_before_training(error, tmp_path, monkeypatch):
    """Orbax raises any kind."""

    def fail(*_, **__):
        raise error("no such thing")

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fail)
    with pytest.raises(InputError, match="cannot keep checkpoints: one was written and could not be read .*; use anot"):
        trainer.train(tiny.mixture(), str(tmp_path))
    assert not (tmp_path / "config.json").exists() and not list((tmp_path / "checkpoints").iterdir())


def test_a_kill_while_the_store_is_tried_is_no_reason_to_refuse_it(tmp_path):
    (tmp_path / "checkpoints" / "probe" / "0" / "state").mkdir(parents=True)
    integrity.check_store(str(tmp_path))
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_save_that_fails_in_any_way_is_tried_again(tmp_path, monkeypatch):
    save = ocp.CheckpointManager.save

    def fail(self, step, *rest, **options):
        if step == 4:
            raise TypeError("no such thing")
        return save(self, step, *rest, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "save", fail)
    trainer.train(tiny.mixture(), str(tmp_path))
    (event,) = workdirs.events(tmp_path, "unsaved")
    assert "no such thing" in event["what"] and workdirs.steps(tmp_path) == [2, 6]


def test_what_a_kill_left_half_written_is_removed_and_what_is_foreign_stays(line_run, tmp_path):
    run = shutil.copytree(line_run, tmp_path / "run")
    half = run / "checkpoints" / "8.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    half.mkdir(parents=True)
    (run / "config.json.host-1.part").write_text("{")
    (run / "checkpoints" / "notes.txt").write_text("mine")
    (run / "checkpoints" / "best").mkdir()
    trainer.train(tiny.mixture(num_steps=8), str(run))
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["4", "6", "8", "best", "notes.txt"]
    assert not list(run.glob("*.part"))


@pytest.mark.slow
def test_a_full_disk_costs_time_only(tmp_path, monkeypatch):
    """The save of step 8 fails; the next line of the log saves again, and what was there before is there until then."""
    save, there = trainer._Run._save, []

    def tight(self, step, *rest):
        there.append((step, workdirs.steps(tmp_path / "run")))
        if step != 8:
            return save(self, step, *rest)
        assert self._checkpoints.write_fault(wait=True) is None
        with tiny.files_of_at_most(2000):
            save(self, step, *rest)
            while self._checkpoints._manager.is_saving_in_progress():
                time.sleep(0.01)

    def config():
        config = tiny.mixture(num_steps=16)
        config.train.checkpoint_every, config.train.keep_checkpoints = 4, 1
        return config

    trainer.train(config(), str(tmp_path / "whole"))
    monkeypatch.setattr(trainer._Run, "_save", tight)
    trainer.train(config(), str(tmp_path / "run"))
    (event,) = workdirs.events(tmp_path / "run", "unsaved")
    assert event["step"] == 10 and "trying again" in event["what"]
    assert [step for step, _ in there] == [4, 8, 10, 12, 16] and there[2] == (10, [4])
    workdirs.assert_equal(tmp_path / "run", tmp_path / "whole")
    assert workdirs.steps(tmp_path / "run") == [16]


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_with_the_older_step_intact(tmp_path):
    trainer.train(tiny.mixture(num_steps=4), str(tmp_path))
    full = pytest.raises(InputError, match="step 6 could not be saved .*newest checkpoint is of step 4: free")
    with full, tiny.files_of_at_most(4000):
        trainer.train(tiny.mixture(num_steps=6), str(tmp_path))
    trainer.train(tiny.mixture(num_steps=6), str(tmp_path))
    assert workdirs.newest(tmp_path) == 6


@pytest.mark.slow
def test_a_save_that_fails_slowly_removes_nothing(tmp_path, monkeypatch):
    """Orbax removes older steps in a thread of its own, which must hear of the failure first."""
    finalise = ocp.CheckpointManager._finalize
    late = lambda self, *args: (time.sleep(0.5), finalise(self, *args))[1]  # noqa: E731
    monkeypatch.setattr(ocp.CheckpointManager, "_finalize", late)
    config = tiny.mixture(num_steps=4)
    config.train.keep_checkpoints = 1
    trainer.train(config, str(tmp_path))
    # Lines of the log, at each of which the save is asked after, while that thread is still asleep.
    config.train.num_steps, config.train.log_every, config.train.checkpoint_every = 300, 1, 150
    full = pytest.raises(InputError, match="step 300 could not be saved")
    with full, tiny.files_of_at_most(6000):
        trainer.train(config, str(tmp_path))
    assert workdirs.steps(tmp_path) == [4] and workdirs.newest(tmp_path) == 4


def test_some_steps_are_kept_for_good(tmp_path):
    config = tiny.mixture(num_steps=16)
    config.train.keep_checkpoints, config.train.keep_every = 1, 6
    trainer.train(config, str(tmp_path))
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [6, 12, 16]
