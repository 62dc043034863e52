"""Which steps of a run are traced, where the trace lies, and that no run ends by it."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from eval.machine import trace
from sgflow_jax import build, trainer
from sgflow_jax.config.check import check_config
from sgflow_jax.interfaces import InputError
from sgflow_jax.run.step_trace import StepTrace
from tests import tiny, workdirs
from tests.commands import ROOT

MODULE = "jit__unnamed_function"  # the training step's


def _traced(workdir):
    """How many steps the one trace of a run has."""
    (file,) = (workdir / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    counts = Counter(event.name for event in trace.read(file, MODULE))
    return min(counts.values())  # some run several times a step


@pytest.mark.slow
def test_the_flag_as_it_is_typed(tmp_path):
    """The trace has these steps and no other, and opens in both programs."""
    flags = "--config=configs/mixture1d.py --config.data.batch_size=16 --config.model.width=8 --config.model.depth=1"
    steps = "--config.train.num_steps=6 --config.train.log_every=2 --config.profile.steps=3,5"
    command = [sys.executable, "main.py", f"--workdir={tmp_path}", *flags.split(), *steps.split()]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "config.json").read_text())["profile"]["steps"] == [3, 5]
    (event,) = workdirs.events(tmp_path, "profile")
    assert event["step"] == 5 and "wrote a trace from step 3 to" in event["what"]
    assert "wrote a trace from step 3" in done.stdout
    place = Path(event["what"].split("step 3 to ")[1].split(":")[0])
    assert place.parent == tmp_path / "tensorboard" / "plugins" / "profile"
    assert _traced(tmp_path) == 3
    (for_perfetto,) = place.glob("*.trace.json.gz")
    assert json.loads(gzip.decompress(for_perfetto.read_bytes()))["traceEvents"]


@pytest.mark.slow
def test_a_continued_run_traces_the_rest_and_may_change_which(tmp_path):
    trainer.train(tiny.mixture(num_steps=4), str(tmp_path))
    config = tiny.mixture(num_steps=6)
    config.profile.steps = (3, 6)
    assert trainer.train(config, str(tmp_path))
    (event,) = workdirs.events(tmp_path, "profile")
    assert "a trace from step 5" in event["what"] and _traced(tmp_path) == 2
    # What is there now is in no run's way, and nothing is left to trace.
    assert trainer.train(config, str(tmp_path)) and len(workdirs.events(tmp_path, "profile")) == 1


def test_a_run_that_diverges_closes_its_trace(tmp_path, monkeypatch):
    config = tiny.mixture(num_steps=8)
    config.profile.steps = (2, 8)
    source = build.source(config)
    batch = type(source).batch
    poisoned = lambda self, seed, step, *rest: {  # noqa: E731
        **(made := batch(self, seed, step, *rest)),
        "x": made["x"] * (np.nan if step == 3 else 1),
    }
    monkeypatch.setattr(type(source), "batch", poisoned)
    with pytest.raises(trainer.Stopped):
        trainer.train(config, str(tmp_path))
    (event,) = workdirs.events(tmp_path, "profile")
    assert event["step"] == 4 and _traced(tmp_path) == 3  # 2, 3 and 4
    with jax.profiler.trace(str(tmp_path / "other")):  # which another one on would not allow
        pass


def test_a_trace_that_cannot_be_written_ends_no_run(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    in_the_way = tmp_path / "tensorboard" / "plugins"
    in_the_way.write_text("")
    config = tiny.mixture(num_steps=4)
    config.profile.steps = (2, 3)
    try:
        assert trainer.train(config, str(tmp_path))
    finally:
        in_the_way.unlink()
        jax.profiler.stop_trace()  # JAX keeps it for another attempt
    (event,) = workdirs.events(tmp_path, "profile")
    assert "warning: the trace from step 2 could not be written" in event["what"] and event["step"] == 3


def test_a_profiler_that_cannot_begin_ends_no_run(tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("Profile has\nalready been started")

    told = []
    monkeypatch.setattr(jax.profiler, "start_trace", fail)
    with StepTrace((2, 3), str(tmp_path), lambda *event: told.append(event)) as trace:
        for step in range(5):
            trace.after(step, 0)
    ((kind, step, line),) = told
    assert (kind, step) == ("profile", 1) and "no trace from step 2" in line and "has already been" in line


@pytest.fixture
def calls(monkeypatch):
    """What a trace does, in order."""
    made = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: made.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: made.append("stop"))
    monkeypatch.setattr(jax, "block_until_ready", lambda state: made.append(state))
    return made


def _walk(tmp_path, calls, steps, reached):
    (tmp_path / "tensorboard" / "plugins" / "profile" / "now").mkdir(parents=True)
    with StepTrace(steps, str(tmp_path), lambda *event: None) as traced:
        for step in reached:
            traced.after(step, f"wait for {step}")
            calls.append(step)
    return calls


def test_the_device_is_waited_for_at_both_ends_alone(tmp_path, calls):
    made = _walk(tmp_path, calls, (3, 4), range(6))
    assert made == [0, 1, "wait for 2", "start", 2, 3, "wait for 4", "stop", 4, 5]


def test_a_rollback_out_of_the_steps_ends_the_trace_which_then_comes_again(tmp_path, calls):
    made = _walk(tmp_path, calls, (3, 4), [2, 3, 1, 2, 3, 4])
    assert [each for each in made if each in ("start", "stop", 1)] == ["start", "stop", 1, "start", "stop"]


def test_only_the_first_process_traces(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert _walk(tmp_path, calls, (3, 4), range(6)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "steps, per_dispatch, match",
    [
        ((3,), 1, r"profile.steps is \(3,\): use the first and the last step.*num_steps = 6, like 100,105; or \(\)"),
        ((1, 2, 3), 1, "first and the last step"),
        ((0, 3), 1, "from 1"),
        ((4, 3), 1, "in order"),
        ((3, 7), 1, "num_steps = 6"),
        ((2, 4), 2, r"profile.steps is \(2, 4\): use the step after a multiple of train.steps_per_dispatch = 2"),
        ((3, 5), 2, "and a multiple of it"),
    ],
)
def test_steps_that_cannot_be_traced(steps, per_dispatch, match):
    config = tiny.mixture(num_steps=6)
    config.profile.steps, config.train.steps_per_dispatch = steps, per_dispatch
    with pytest.raises(InputError, match=match):
        check_config(config)


@pytest.mark.parametrize("steps, per_dispatch", [((), 1), ((1, 6), 1), ((2, 2), 1), ((3, 6), 2)])
def test_steps_that_can(steps, per_dispatch):
    config = tiny.mixture(num_steps=6)
    config.profile.steps, config.train.steps_per_dispatch = steps, per_dispatch
    assert check_config(config) is None
