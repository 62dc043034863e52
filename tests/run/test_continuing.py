"""What a run does not continue from: other data, and what another run has just written."""

import shutil

import pytest

from sgflow_jax import build, trainer
from sgflow_jax.interfaces import InputError
from tests import tiny, workdirs


def test_a_run_that_was_written_to_meanwhile_is_not_gone_over(line_run, tmp_path, monkeypatch):
    """Another run came and went between looking and beginning."""
    run = tmp_path / "run"
    source = build.source
    monkeypatch.setattr(build, "source", lambda config: (shutil.copytree(line_run, run), source(config))[1])
    with pytest.raises(InputError, match="another run has just written"):
        trainer.train(tiny.mixture(), str(run))
    assert workdirs.steps(run) == [2, 4, 6] and not (run / "damaged").exists()


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
