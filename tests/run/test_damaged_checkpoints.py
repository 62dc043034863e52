"""Checkpoints that were damaged or written by another version, and what is still read of them."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sgflow_jax import trainer
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, integrity
from sgflow_jax.run.checkpoint import Checkpoints
from tests import tiny, workdirs


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
        assert workdirs.newest(run) == 6 and f"damaged/{aside}" in workdirs.events(run, "damaged")[-1]["what"]
    workdirs.assert_equal(run, line_run)


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
    assert workdirs.steps(run) == [2, 4, 6] and not (run / "damaged").exists() and not capsys.readouterr().err


def test_nothing_sound_is_no_licence_to_begin_anew(line_run, tmp_path):
    run = shutil.copytree(line_run, tmp_path / "run")
    for step in (2, 4, 6):
        _no_state(run / "checkpoints" / str(step))
    for use in (lambda: access.open(str(run)), lambda: trainer.train(tiny.mixture(), str(run))):
        with pytest.raises(InputError, match="no readable checkpoint"):
            use()
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "4", "6"]


def test_two_arrays_changed_round_are_noticed(tmp_path):
    tree = {"a": np.arange(4.0, dtype=np.float32), "b": np.ones(4, np.float32)}
    total = lambda tree: integrity.bit_sum(tree, integrity.sum_on_devices)  # noqa: E731
    assert total(tree) != total({"a": tree["b"], "b": tree["a"]})
    assert total(tree) != total({**tree, "a": tree["a"][::-1]})
