"""Checkpoints that were damaged, half written, or written by another layout; and disks that are full."""

import json
import re
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sgflow_jax import build, trainer
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, integrity
from sgflow_jax.run.checkpoint import Checkpoints
from tests import tiny


def _newest(workdir):
    with Checkpoints(str(workdir), read_only=True) as checkpoints:
        return checkpoints.find().step


def _steps(workdir):
    return integrity.step_numbers(Path(workdir) / "checkpoints")


def _events(workdir, kind):
    rows = [json.loads(line) for line in (Path(workdir) / "events.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == kind]


def _equal(a, b):
    for parameters in ("ema", "raw"):
        left, right = (build.restore_net(str(w), ema=parameters).params for w in (a, b))
        jax.tree.map(np.testing.assert_array_equal, left, right)


def _data(step):
    """The files with the numbers of the state."""
    return [file for file in (step / "state").rglob("d/*") if file.is_file()]


def _cut(step):
    for file in _data(step):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _one_bit(step):
    """In the middle of the largest, where only numbers are: TensorStore does not notice."""
    largest = max(file.stat().st_size for file in _data(step))
    for file in _data(step):
        content = bytearray(file.read_bytes())
        if len(content) > 0.9 * largest:
            content[len(content) // 2] ^= 1
            file.write_bytes(content)


def _facts(step, **changed):
    file = step / "facts" / "metadata"
    facts = {name: value for name, value in (json.loads(file.read_text()) | changed).items() if value is not None}
    file.write_text(json.dumps(facts))


def _another_sum(step):
    """As if a number had changed without any reader noticing."""
    facts = json.loads((step / "facts" / "metadata").read_text())
    _facts(step, sum=facts["sum"] ^ 1, sums={name: total ^ 1 for name, total in facts["sums"].items()})


def _without_sums(step):
    """As written before each part had its checksum."""
    _facts(step, sums=None)
    _one_bit(step)


def _empty_index(step):
    (step / "state" / "manifest.ocdbt").write_bytes(b"")


def _no_state(step):
    shutil.rmtree(step / "state")


def _garbage(step):
    (step / "config" / "metadata").write_bytes(b"\xff\x00{")


def _foreign(step):
    shutil.rmtree(step)
    step.mkdir()
    (step / "notes.txt").write_text("mine")


def _link(step):
    shutil.rmtree(step)
    step.symlink_to(step.parent / "4" / "config")


@pytest.mark.parametrize(
    "damage",
    [
        *(_one_bit, _another_sum, _no_state, _garbage),
        *(pytest.param(rare, marks=pytest.mark.slow) for rare in (_cut, _without_sums, _empty_index, _foreign, _link)),
    ],
)
def test_the_newest_sound_step_is_used_and_the_fault_named(damage, line_run, tmp_path, capsys):
    run = shutil.copytree(line_run, tmp_path / "run")
    damage(run / "checkpoints" / "6")
    assert access.open(str(run)).step == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "checkpoints/6 is damaged: " in said
    with pytest.raises(InputError, match="checkpoints/6 is damaged .*: use another step"):
        access.open(str(run), step=6)

    with Checkpoints(str(run)) as checkpoints:
        assert checkpoints.find().step == 4
        assert checkpoints.set_aside_after(4) == [str(run / "damaged" / "6.0")]
        assert checkpoints.latest() == 4 and (run / "damaged" / "6.0").exists()


def test_a_run_continues_from_its_newest_sound_step(line_run, tmp_path):
    run = shutil.copytree(line_run, tmp_path / "run")
    for aside in ("6.0", "6.1"):
        _one_bit(run / "checkpoints" / "6")
        trainer.train(tiny.mixture(), str(run))
        assert _newest(run) == 6 and f"damaged/{aside}" in _events(run, "damaged")[-1]["what"]
    _equal(run, line_run)


def _another_optimiser(step):
    """Only the optimiser's state is another; every file can be read."""
    with ocp.PyTreeCheckpointer() as files:
        state = files.restore(step / "state")
        state["opt_state"] = jax.tree.map(lambda a: a + 1, state["opt_state"])
        files.save(step / "state", state, force=True)


def test_a_network_is_read_without_the_optimiser(line_run, tmp_path, capsys):
    run = shutil.copytree(line_run, tmp_path / "run")
    _another_optimiser(run / "checkpoints" / "6")
    for parameters in ("ema", "raw"):
        opened, whole = (access.open(str(each), parameters=parameters) for each in (run, line_run))
        assert opened.step == 6 and opened.fingerprint == whole.fingerprint
        jax.tree.map(np.testing.assert_array_equal, opened.net().params, whole.net().params)
    assert not capsys.readouterr().err
    assert integrity.newest(str(run)).step == 4  # a run continues from here


def test_a_network_is_read_once(line_run, monkeypatch):
    read, restore = [], ocp.PyTreeCheckpointHandler.restore

    def counted(self, place, *, args):
        read.append((place.name, *args.item))
        return restore(self, place, args=args)

    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "restore", counted)
    opened = access.open(line_run)
    assert opened.fingerprint and opened.net() and opened.net()
    assert read == [("state", "average")]


def test_a_checkpoint_without_checksums_of_parts_is_read(line_run):
    before = access.open(line_run)
    _facts(Path(line_run) / "checkpoints" / "6", sums=None)
    after = access.open(line_run)
    assert (after.step, after.fingerprint) == (6, before.fingerprint)


def _without_facts(step):
    shutil.rmtree(step / "facts")
    shutil.rmtree(step / "monitor")


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda step: _facts(step, format=None), "an older version of sgflow_jax (format 1, this one reads 2): use"),
        (_without_facts, "an older version of sgflow_jax (format 1, this one reads 2): use that version, or another"),
        (lambda step: _facts(step, format=3), "a newer version of sgflow_jax (format 3, this one reads 2): use that"),
    ],
)
def test_another_version_s_checkpoint_is_neither_damaged_nor_touched(change, says, line_run, tmp_path, capsys):
    run = shutil.copytree(line_run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    change(run / "checkpoints" / "6")
    (run / "config.json").write_text('{"seed": 0}')  # which knows other fields
    uses = (
        lambda: access.open(str(run)),
        lambda: access.open(str(run), step=6),
        lambda: trainer.train(tiny.mixture(num_steps=8), str(run)),
    )
    for use in uses:
        with pytest.raises(InputError, match=re.escape(f"checkpoints/6 was written by {says}")):
            use()
    assert _steps(run) == [2, 4, 6] and not (run / "damaged").exists() and not capsys.readouterr().err


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
    (event,) = _events(tmp_path, "unsaved")
    assert "no such thing" in event["what"] and _steps(tmp_path) == [2, 6]


def test_nothing_sound_is_no_licence_to_begin_anew(line_run, tmp_path):
    run = shutil.copytree(line_run, tmp_path / "run")
    for step in (2, 4, 6):
        _no_state(run / "checkpoints" / str(step))
    for use in (lambda: access.open(str(run)), lambda: trainer.train(tiny.mixture(), str(run))):
        with pytest.raises(InputError, match="no readable checkpoint"):
            use()
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "4", "6"]


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
        there.append((step, _steps(tmp_path / "run")))
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
    (event,) = _events(tmp_path / "run", "unsaved")
    assert event["step"] == 10 and "trying again" in event["what"]
    assert [step for step, _ in there] == [4, 8, 10, 12, 16] and there[2] == (10, [4])
    _equal(tmp_path / "run", tmp_path / "whole")
    assert _steps(tmp_path / "run") == [16]


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_with_the_older_step_intact(tmp_path):
    trainer.train(tiny.mixture(num_steps=4), str(tmp_path))
    full = pytest.raises(InputError, match="step 6 could not be saved .*newest checkpoint is of step 4: free")
    with full, tiny.files_of_at_most(4000):
        trainer.train(tiny.mixture(num_steps=6), str(tmp_path))
    trainer.train(tiny.mixture(num_steps=6), str(tmp_path))
    assert _newest(tmp_path) == 6


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
    assert _steps(tmp_path) == [4] and _newest(tmp_path) == 4


def test_a_run_that_was_written_to_meanwhile_is_not_gone_over(line_run, tmp_path, monkeypatch):
    """Another run came and went between looking and beginning."""
    run = tmp_path / "run"
    source = build.source
    monkeypatch.setattr(build, "source", lambda config: (shutil.copytree(line_run, run), source(config))[1])
    with pytest.raises(InputError, match="another run has just written"):
        trainer.train(tiny.mixture(), str(run))
    assert _steps(run) == [2, 4, 6] and not (run / "damaged").exists()


def test_two_arrays_changed_round_are_noticed(tmp_path):
    tree = {"a": np.arange(4.0, dtype=np.float32), "b": np.ones(4, np.float32)}
    total = lambda tree: integrity.bit_sum(tree, integrity.sum_on_devices)  # noqa: E731
    assert total(tree) != total({"a": tree["b"], "b": tree["a"]})
    assert total(tree) != total({**tree, "a": tree["a"][::-1]})


def test_some_steps_are_kept_for_good(tmp_path):
    config = tiny.mixture(num_steps=16)
    config.train.keep_checkpoints, config.train.keep_every = 1, 6
    trainer.train(config, str(tmp_path))
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [6, 12, 16]


def test_another_data_set_is_refused(line_run, tmp_path, monkeypatch):
    run = shutil.copytree(line_run, tmp_path / "run")
    source = build.source(tiny.mixture())
    monkeypatch.setattr(type(source), "identity", lambda self: {"name": "mixture1d", "split": "other"})
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="was trained on .*'train'.*, but config.data points to .*'other'"):
        trainer.train(tiny.mixture(num_steps=8), str(run))
    assert (run / "metrics.jsonl").read_bytes() == before


def test_other_images_of_the_same_name_and_number_are_refused(digits_run, tmp_path, monkeypatch):
    run = shutil.copytree(digits_run, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    other = build.source(tiny.digits())
    other.images[0, 0, 0, 0] ^= 1
    changed = other.identity()["fingerprint"]
    monkeypatch.setattr(build, "source", lambda config: other)
    with pytest.raises(InputError, match="trained on .*'7c6e988e3921'.*, but config.data points to .*" + changed):
        trainer.train(tiny.digits("flow_matching", num_steps=4), str(run))
