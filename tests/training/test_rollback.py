"""Runs that diverge and go back by themselves."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from sgflow_jax import build, data, trainer
from sgflow_jax.devices import sharding
from sgflow_jax.interfaces import Stream, stream_key
from sgflow_jax.run.checkpoint import Checkpoints
from tests import tiny


def _rows(workdir):
    return [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]


def _poison(monkeypatch, *bad):
    """Makes the batches of these numbers not a number."""
    source = build.source(tiny.mixture())
    batch = type(source).batch

    def poisoned(self, seed, step, batch_size, rows):
        made = batch(self, seed, step, batch_size, rows)
        return {**made, "x": made["x"] * np.nan} if step in bad else made

    monkeypatch.setattr(type(source), "batch", poisoned)


def test_a_rollback_skips_the_batches_and_lowers_the_learning_rate(tmp_path, monkeypatch):
    """Batches 4 and 5 of steps 5 and 6 are left out; what follows is what step 5 with batch 6 gives."""
    config = tiny.mixture(num_steps=12)
    config.optim.schedule, config.optim.warmup_steps = "constant", 0
    config.train.on_divergence, config.train.keep_checkpoints = "rollback", 10
    _poison(monkeypatch, 5)
    trainer.train(config, str(tmp_path))
    assert [row["step"] for row in _rows(tmp_path)] == [2, 4, 6, 8, 10, 12]
    rates = [row["learning_rate"] / config.optim.learning_rate for row in _rows(tmp_path)]
    np.testing.assert_allclose(rates, [1, 1, 0.5, 0.5, 0.5, 0.5])
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (event,) = [event for event in events if event["event"] == "rollback"]
    assert "not finite at step 6: back to step 4, 2 batches skipped, learning rate times 0.5" in event["what"]

    # By hand, from step 4 of the same run.
    mesh, source = sharding.mesh(), build.source(config)
    step_fn = build.train_step(config, mesh)
    like = build.state_like(config, step_fn, mesh)
    with Checkpoints(str(tmp_path), read_only=True) as checkpoints:
        state, expected = (checkpoints.state(step, like) for step in (4, 12))
    state = state.replace(rollbacks=np.int32(1), skipped=np.int32(2))
    monitor = step_fn.init_monitor(data.batch_like(tiny.mixture().data, 16), state)
    advance, key = build.compiled(config, step_fn, like, mesh), stream_key(config.seed, Stream.TRAINING)
    for step in range(4, 12):
        state, monitor = advance(state, monitor, source.batch(0, step + 2, 16, slice(None)), key, None)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, state, expected)


def test_rollbacks_survive_a_restart_and_are_counted(tmp_path, monkeypatch):
    config = tiny.mixture(num_steps=20)
    config.train.on_divergence, config.train.max_rollbacks = "rollback", 2
    _poison(monkeypatch, 5, 9, 14)
    config.train.num_steps = 6
    trainer.train(config, str(tmp_path))
    config.train.num_steps = 20
    with pytest.raises(trainer.Stopped, match=r"not finite at step 11 after 2 rollback\(s\); .* of step 10"):
        trainer.train(config, str(tmp_path))
    kinds = [json.loads(line)["event"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert kinds == ["start", "rollback", "start", "rollback", "diverged"]


def test_a_rollback_before_the_first_checkpoint_begins_anew(tmp_path, monkeypatch):
    config = tiny.mixture(num_steps=4)
    config.train.on_divergence = "rollback"
    _poison(monkeypatch, 0)
    trainer.train(config, str(tmp_path))
    assert [row["step"] for row in _rows(tmp_path)] == [2, 4]
