"""Distillation: runs whose velocity is that of another run."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import quickstart
from eval import fid_sweep
from sgflow_jax import build, data, sample_run, trainer
from sgflow_jax.config.check import check_config
from sgflow_jax.devices import sharding
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access
from sgflow_jax.run.checkpoint import Checkpoints
from tests import tiny


def _untrained(config, workdir):
    """A run of no steps: its directory as far as it can be restored from."""
    step = build.train_step(config)
    state = step.init(jax.random.key(0), data.shape(config.data))
    monitor = step.init_monitor(data.batch_like(config.data, config.data.batch_size), state)
    with Checkpoints(str(workdir)) as checkpoints:
        checkpoints.save(1, state, monitor, config, {})
    return str(workdir)


def _teacher_config(num_steps=6):
    config = tiny.mixture("flow_matching", num_steps)
    config.optim.schedule = "constant"  # so that a shorter run is the start of a longer one
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with checkpoints of steps 2, 4 and 6."""
    workdir = tmp_path_factory.mktemp("teacher")
    trainer.train(_teacher_config(), str(workdir))
    return workdir


def _student(workdir, objective="sgflow", step=0, num_steps=4):
    config = tiny.mixture(objective, num_steps)
    config.optim.schedule = "constant"
    config.teacher.workdir, config.teacher.step = str(workdir), step
    return config


def _train(config, workdir):
    """Trains; returns the parameters and the step of the teacher that was written down."""
    trainer.train(config, str(workdir))
    opened = access.open(str(workdir), parameters="raw")
    recorded = json.loads((workdir / "config.json").read_text())["teacher"]["step"]
    assert recorded == opened.config.teacher.step
    return opened.params, recorded


def _equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("objective", ["sgflow", "consistency"])
def test_a_run_distils_the_velocity_of_another(objective, finished, tmp_path):
    newest, step = _train(_student(finished, objective), tmp_path / "newest")
    assert step == 6
    alone, step = _train(_student("", objective), tmp_path / "alone")
    assert step == 0 and not _equal(newest, alone)
    if objective == "sgflow":
        earlier, step = _train(_student(finished, step=2), tmp_path / "earlier")
        assert step == 2 and not _equal(newest, earlier)


def test_the_teacher_is_the_averaged_network_of_its_step(finished):
    teacher, step, _ = build.teacher(_student(finished, step=4), sharding.mesh())
    assert step == 4 and _equal(teacher.params, build.restore_net(str(finished), step=4).params)
    assert teacher.dropout_keys is None
    assert build.teacher(_student(""), sharding.mesh()) == (None, 0, "")


@pytest.mark.slow
def test_a_continued_run_keeps_its_teacher_although_that_trained_on(finished, tmp_path):
    """Even if its config.json is lost: the checkpoint has the configuration too."""
    teacher, run = shutil.copytree(finished, tmp_path / "teacher"), tmp_path / "run"
    _train(_student(teacher, num_steps=2), run)
    (run / "config.json").unlink()
    trainer.train(_teacher_config(num_steps=8), str(teacher))

    with pytest.raises(InputError, match=r"teacher.step \(there 6, here 8\)"):
        trainer.train(_student(teacher, step=8), str(run))
    parts, step = _train(_student(teacher), run)
    assert step == 6
    whole, _ = _train(_student(teacher, step=6), tmp_path / "whole")
    assert _equal(parts, whole)
    other, step = _train(_student(teacher), tmp_path / "other")
    assert step == 8 and not _equal(parts, other)


@pytest.mark.slow
def test_a_teacher_that_moved_is_the_same_and_another_is_not(finished, tmp_path):
    teacher, run = shutil.copytree(finished, tmp_path / "teacher"), tmp_path / "run"
    _train(_student(teacher, num_steps=2), run)
    moved = teacher.rename(tmp_path / "moved")
    other = _untrained(_other(), tmp_path / "other")
    shutil.move(f"{other}/checkpoints/1", f"{other}/checkpoints/6")
    with pytest.raises(InputError, match="other', whose network of step 6 has the fingerprint [0-9a-f]{8}, not "):
        trainer.train(_student(other), str(run))
    with pytest.raises(InputError, match=r"teacher.workdir \(there '.*teacher', here ''\)"):
        trainer.train(_student(""), str(run))
    parts, _ = _train(_student(moved), run)
    whole, _ = _train(_student(finished), tmp_path / "whole")
    assert _equal(parts, whole)
    assert json.loads((run / "config.json").read_text())["teacher"]["workdir"] == str(moved)


@pytest.mark.slow
def test_what_was_distilled_is_used_without_its_teacher(finished, tmp_path):
    teacher, run = shutil.copytree(finished, tmp_path / "teacher"), tmp_path / "run"
    _train(_student(teacher), run)
    shutil.rmtree(teacher)

    out = tmp_path / "samples.npz"
    request = sample_run.Request(calls=(1,), num_samples=4, method=None, seed=0)
    sample_run.sample(str(run), _student(teacher), str(out), request)
    with np.load(out) as arrays:
        assert arrays["steps_1"].shape == (4, 1)
    (row,) = fid_sweep.sweep([str(run)], fid_sweep.Request(calls=(1,)))[str(run)]
    assert np.isfinite(row.scores.value)
    with pytest.raises(InputError, match="teacher has no checkpoint"):
        trainer.train(_student(teacher, num_steps=6), str(run))


def _other(objective="flow_matching", **fields):
    config = tiny.mixture(objective)
    config.update_from_flattened_dict(fields)
    return config


@pytest.mark.parametrize(
    "teacher, match",
    [
        (_other(**{"data.name": "eight_gaussians"}), r"trained on examples of shape \(2,\), not \(1,\): use another"),
        (_other("consistency"), "trained by consistency, which has no velocity"),
        (_other(**{"objective.interpolant": "trigonometric"}), "interpolant is trigonometric, not linear"),
        (_other(**{"model.num_classes": 10}), "model.num_classes is 10, not 0"),
    ],
)
def test_a_run_that_cannot_teach_is_refused(teacher, match, tmp_path):
    workdir = _untrained(teacher, tmp_path / "teacher")
    with pytest.raises(InputError, match=match) as error:
        trainer.train(_student(workdir), str(tmp_path / "run"))
    assert str(error.value).startswith(f"config.teacher.workdir is {workdir!r}") and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_shortcut_run_can_teach(tmp_path):
    """Its step sizes are few, but it learns t = u too."""
    workdir = _untrained(_other("shortcut"), tmp_path / "teacher")
    assert build.teacher(_student(workdir), sharding.mesh())[1] == 1


@pytest.mark.parametrize(
    "objective, fields, match",
    [
        ("sgflow", {"teacher.workdir": "nowhere"}, "nowhere has no checkpoint"),
        ("sgflow", {"teacher.step": 5}, "no checkpoint of step 5: it has 2, 4, 6"),
        ("sgflow", {"teacher.step": -1}, "teacher.step is -1"),
        ("psd", {}, "teacher.workdir is '.*use '', as psd takes no velocity"),
        ("flow_matching", {}, "teacher.workdir is '.*use '', as flow_matching takes no velocity"),
        ("fmm", {}, "teacher.workdir is '.*use '', as fmm takes no velocity"),
    ],
)
def test_a_teacher_that_is_not_there_or_of_no_use_is_refused(objective, fields, match, finished, tmp_path):
    config = _student(finished, objective)
    config.update_from_flattened_dict(fields)
    with pytest.raises(InputError, match=match) as error:
        trainer.train(config, str(tmp_path / "run"))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


_LABELS = {"model.num_classes": 10, "model.label_dropout": 0.1}


@pytest.mark.parametrize(
    "theirs, ours, match",
    [
        ({"model.num_classes": 10}, _LABELS, r"trained without the null class \(model.label_dropout\), which this run"),
        (_LABELS, {**_LABELS, "objective.guidance": 2.0}, None),
        (_LABELS, {"model.num_classes": 10}, None),
        ({**_LABELS, "objective.guidance": 2.0}, _LABELS, "trained with objective.guidance 2.0, not 1: use another"),
    ],
)
def test_which_labelled_runs_can_teach(theirs, ours, match, tmp_path):
    workdir = _untrained(_other(**theirs), tmp_path / "teacher")
    config = _student(workdir)
    config.update_from_flattened_dict(ours)
    if match is None:
        assert build.teacher(config, sharding.mesh())[1] == 1
        return
    with pytest.raises(InputError, match=match) as error:
        build.teacher(config, sharding.mesh())
    assert str(error.value).startswith(f"config.teacher.workdir is {workdir!r}") and "\n" not in str(error.value)


def test_guidance_needs_labels_a_null_class_and_a_velocity():
    def check(objective="sgflow", **fields):
        config = quickstart.get_config(objective)
        config.update_from_flattened_dict({name.replace("_", ".", 1): value for name, value in fields.items()})
        check_config(config)

    labels = {"model_num_classes": 10, "model_label_dropout": 0.1}
    check(objective_guidance=2.0, **labels)
    check(objective_velocity_target="batch", **labels)
    for fields in ({}, {"model_num_classes": 10}):
        with pytest.raises(InputError, match="objective.guidance is 2.0: use 1, or labels and model.label_dropout"):
            check(objective_guidance=2.0, **fields)
    with pytest.raises(InputError, match="objective.guidance is 2.0: use 1, or give teacher.workdir, as consistency"):
        check("consistency", objective_guidance=2.0, **labels)
    check("consistency", objective_guidance=2.0, teacher_workdir="runs/teacher", **labels)
