"""What a run decides before its first step: what it keeps, and the checkpoint of another run it may begin with."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from eval import fid_sweep
from eval.machine import gradient_cost
from eval.scores import while_training
from sgflow_jax import beginning, build, trainer
from sgflow_jax.config.check import check_config
from sgflow_jax.display import dry_run
from sgflow_jax.display.banner import banner
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.preparation import prepare
from sgflow_jax.run import record
from tests import tiny


def _fork(line_run, num_steps=6, source="@4"):
    config = tiny.mixture(num_steps=num_steps)
    config.train.fork_from = f"{line_run}{source}"
    config.optim.schedule = "constant"
    return config


def _lines(workdir, file):
    return [json.loads(line) for line in (Path(workdir) / file).read_text().splitlines()]


@pytest.mark.slow
def test_a_fork_begins_where_the_other_run_was_and_then_needs_it_no_more(line_run, tmp_path):
    config = _fork(line_run)
    assert trainer.train(config, str(tmp_path))
    for parameters in ("ema", "raw"):
        theirs, ours = (build.restore_net(w, step=4, ema=parameters).params for w in (line_run, str(tmp_path)))
        jax.tree.map(np.testing.assert_array_equal, theirs, ours)
    assert [row["step"] for row in _lines(tmp_path, "metrics.jsonl")] == [6]
    start = _lines(tmp_path, "events.jsonl")[0]
    assert start["event"] == "start" and start["step"] == 4 and start["fork_from"] == f"{line_run}@4"
    assert json.loads((tmp_path / "config.json").read_text())["train"]["fork_from"] == f"{line_run}@4"

    config.train.num_steps = 8
    config.train.fork_from = ""  # the directory knows it
    assert trainer.train(config, str(tmp_path))
    config.train.fork_from = f"{line_run}@2"
    with pytest.raises(InputError, match="train.fork_from"):
        trainer.train(config, str(tmp_path))


def test_a_fork_may_change_what_is_no_array(line_run, tmp_path):
    config = _fork(line_run, source="")
    config.train.num_steps = 8
    config.optim.learning_rate, config.seed = 0.5, 7
    prepared = prepare(config, str(tmp_path))
    assert prepared.start == 6 and prepared.config.train.fork_from == f"{line_run}@6"


@pytest.mark.parametrize("source", ["/@4", "@04", "/"])
def test_the_same_command_continues_a_fork_however_it_names_the_other_run(source, line_run, tmp_path):
    config = _fork(line_run, num_steps=8, source=source)
    train = tmp_path / "run"
    first = prepare(config, str(train))
    disk.make_directory(train)
    record.record(str(train), first.config)  # a run that was killed before its first checkpoint
    assert prepare(config, str(train)).start == first.start > 0


def _begun_from(run, config, **fields):
    config.train.init_from, config.train.num_steps = run, 2
    for name, value in fields.items():
        config.model[name] = value
    return config


def _first(config, workdir):
    """The state before the first step."""
    prepared = prepare(config, str(workdir))
    fresh = build.first_state(prepared.config, prepared.step_fn, prepared.like)
    return prepared, beginning.first_state(prepared.begins_with, fresh, prepared.like), fresh


def test_a_run_begins_with_the_network_of_another_and_a_new_optimiser(line_run, tmp_path):
    prepared, state, fresh = _first(_begun_from(line_run, tiny.mixture("mean_flow")), tmp_path)
    for parameters, ours in (("ema", state.average), ("raw", state.params)):
        jax.tree.map(np.testing.assert_array_equal, ours, build.restore_net(line_run, ema=parameters).params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, fresh.opt_state)
    assert int(state.step) == prepared.start == 0
    assert prepared.config.train.init_from == f"{line_run}@6"
    assert "begins with parameters of step 6 of" in "\n".join(banner(prepared, "", 0))


def test_a_run_that_has_begun_needs_the_other_no_more(line_run, tmp_path):
    config = _begun_from(f"{line_run}/@4", tiny.mixture())
    assert trainer.train(config, str(tmp_path))
    start = _lines(tmp_path, "events.jsonl")[0]
    assert (start["step"], start["init_from"], start["fork_from"]) == (0, f"{line_run}@4", None)
    shutil.rmtree(line_run)
    config.train.num_steps = 4
    assert prepare(config, str(tmp_path)).start == 2
    config.train.init_from = ""  # the directory knows it
    assert trainer.train(config, str(tmp_path))
    config.train.init_from = f"{line_run}@2"
    with pytest.raises(InputError, match="train.init_from"):
        trainer.train(config, str(tmp_path))


def test_only_a_class_table_of_another_size_is_new(digits_run, tmp_path):
    """From no classes to ten, and from those with a null class to the network without one."""
    labelled = _begun_from(digits_run, tiny.digits("flow_matching"), num_classes=10, label_dropout=0.5)
    _, state, fresh = _first(labelled, tmp_path / "labelled")
    theirs = build.restore_net(digits_run, ema=False).params
    np.testing.assert_array_equal(state.params["label"]["embedding"], fresh.params["label"]["embedding"])
    jax.tree.map(np.testing.assert_array_equal, {k: v for k, v in state.params.items() if k != "label"}, theirs)
    trainer.train(labelled, str(tmp_path / "labelled"))

    for fields, rows in (({"num_classes": 10, "label_dropout": 0.1}, 11), ({"num_classes": 10}, 0), ({}, None)):
        config = _begun_from(str(tmp_path / "labelled"), tiny.digits("flow_matching"), **fields)
        _, state, _ = _first(config, tmp_path / "next")
        theirs = build.restore_net(str(tmp_path / "labelled"), ema=False).params
        if rows is not None:
            same = state.params["label"]["embedding"].shape == theirs["label"]["embedding"].shape
            assert same == bool(rows)
            if same:
                np.testing.assert_array_equal(state.params["label"]["embedding"], theirs["label"]["embedding"])
        np.testing.assert_array_equal(state.params["stem"]["kernel"], theirs["stem"]["kernel"])


@pytest.mark.parametrize(
    "source, change, match",
    [
        ("@3", {}, "no checkpoint of step 3: it has 2, 4, 6"),
        ("/nowhere", {}, "no checkpoint"),
        (
            "",
            {"model.width": 4},
            r"init_from is .*, a run of another network: hidden0.bias is \(8,\) there and \(4,\) here, hidden0.kernel "
            r"is \(65, 8\) there and \(65, 4\) here, out.kernel is .* here; use the model fields of that run",
        ),
        ("", {"model.depth": 3}, "hidden1.bias is absent there and .* and 1 more arrays differ; use the model"),
        ("", {"train.fork_from": "runs/other"}, "both fork_from and init_from: use one"),
    ],
)
def test_a_beginning_that_cannot_be_is_refused(source, change, match, line_run, tmp_path):
    config = _begun_from(line_run + source, tiny.mixture())
    for name, value in change.items():
        section, field = name.split(".")
        config[section][field] = value
    with pytest.raises(InputError, match=match):
        trainer.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


BY_FOUR = {f"train.{name}": 4 for name in ("steps_per_dispatch", "log_every", "checkpoint_every")} | {
    "train.num_steps": 12
}


@pytest.mark.parametrize(
    "source, change, match",
    [
        ("@3", {}, "no checkpoint of step 3: it has 2, 4, 6"),
        ("@6", {}, "num_steps is 6: use more than 6 steps"),
        ("/nowhere@2", {}, "no checkpoint"),
        # Its steps would be 2, 6, 10, ...: none to log or to save.
        ("@2", BY_FOUR, "step 2 is not a multiple of train.steps_per_dispatch = 4"),
        ("@2", {"model.width": 4}, r"another network: average.hidden0.bias is \(8,\) there and \(4,\) here"),
    ],
)
def test_a_fork_that_cannot_be_is_refused(source, change, match, line_run, tmp_path):
    config = _fork(line_run, source=source)
    for name, value in change.items():
        section, field = name.split(".")
        config[section][field] = value
    with pytest.raises(InputError, match=match):
        trainer.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("num_steps, every, expected", [(100, 4, 12), (100, 10, 10), (6, 4, 4), (1500, 500, 500)])
def test_a_tenth_of_a_run_is_kept_in_whole_checkpoints(num_steps, every, expected, tmp_path):
    config = tiny.mixture(num_steps=num_steps)
    config.train.keep_every, config.train.checkpoint_every = -1, every
    assert prepare(config, str(tmp_path)).config.train.keep_every == expected


def test_what_is_kept_stays_when_the_run_gets_longer(tmp_path):
    config = tiny.mixture(num_steps=4)
    config.train.keep_every, config.train.keep_checkpoints = -1, 1
    trainer.train(config, str(tmp_path))
    config.train.num_steps = 40
    assert prepare(config, str(tmp_path)).config.train.keep_every == 2
    config.train.num_steps = 400
    assert "keeps 200 checkpoints, one every 2 steps" in "\n".join(banner(prepare(config, str(tmp_path)), "", 0))
    config.train.keep_every = 6
    assert prepare(config, str(tmp_path)).config.train.keep_every == 6
    config.train.keep_every = 3  # no multiple: what was to be kept would go
    with pytest.raises(InputError, match="keep_every"):
        prepare(config, str(tmp_path))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]


def test_a_dry_run_checks_and_writes_nothing(tmp_path, line_run):
    config = tiny.mixture()
    cost = gradient_cost.gradient_cost(config, build.objective(config))
    text = dry_run.report(config, str(tmp_path / "run"), cost)
    assert not (tmp_path / "run").exists()
    resolved, _, rest = text.partition("\nrun ")
    assert json.loads(resolved)["model"]["width"] == 8
    parameters = sum(a.size for a in jax.tree.leaves(build.restore_net(line_run).params))
    assert f"{parameters:,} parameters" in rest and f"{cost.flops:.3g} floating-point operations a step" in rest
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        dry_run.report(config, str(tmp_path / "file"), cost)
    config.optim.learning_rate = 0.5
    with pytest.raises(InputError, match="learning_rate"):
        dry_run.report(config, line_run, cost)


def test_the_log_has_distances_and_times_and_the_start_its_provenance(tmp_path):
    config = tiny.mixture(num_steps=4)
    config.eval.every, config.eval.steps, config.eval.train_samples = 4, (1, 2), 64
    trainer.train(config, str(tmp_path), while_training.scorer)
    first, last = _lines(tmp_path, "metrics.jsonl")
    assert "distance_1_pixels_64" not in first and last["distance_1_pixels_64"] > 0
    assert 0 < first["device_seconds"] < last["device_seconds"] <= 4 * last["wall_seconds"]

    # The same distance as the sweep's, of the same noise.
    (row,) = fid_sweep.sweep([str(tmp_path)], fid_sweep.Request(calls=(2,), num_samples=64))[str(tmp_path)]
    assert row.scores.value == pytest.approx(last["distance_2_pixels_64"], rel=1e-6)

    start = _lines(tmp_path, "events.jsonl")[0]
    assert {"commit", "versions", "host", "device_kind", "command"} <= start.keys()

    config.train.num_steps = 6
    trainer.train(config, str(tmp_path), while_training.scorer)
    assert _lines(tmp_path, "metrics.jsonl")[-1]["device_seconds"] > last["device_seconds"]


@pytest.mark.parametrize(
    "fields, match",
    [
        ({"every": 3}, "eval.every is 3: use a multiple of train.log_every = 2"),
        ({"every": -2}, "eval.every is -2"),
        ({"every": 2, "steps": ()}, "eval.steps"),
        ({"every": 2, "steps": (0,)}, "cannot spend 0"),
        ({"every": 2, "train_samples": 1}, "train_samples is 1"),
    ],
)
def test_bad_distances_while_training_are_refused(fields, match):
    config = tiny.mixture()
    config.eval.update(fields)
    with pytest.raises(InputError, match=match):
        check_config(config)


def test_no_row_of_the_log_is_lost_to_measuring(tmp_path):
    """A run that is killed while it measures has no checkpoint of a step whose row is not written."""

    def killed(net):
        raise SystemExit("killed")

    config = tiny.mixture(num_steps=4)
    config.eval.every = 4
    with pytest.raises(SystemExit, match="killed"):
        trainer.train(config, str(tmp_path), lambda _: killed)
    trainer.train(config, str(tmp_path), lambda _: lambda net: {"distance_1": 1.0})
    assert [(row["step"], row.get("distance_1")) for row in _lines(tmp_path, "metrics.jsonl")] == [(2, None), (4, 1.0)]
