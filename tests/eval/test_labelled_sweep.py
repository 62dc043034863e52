"""Sweeps of runs with labels: labels as in the data, guidance, and the names of the classes."""

import json
from pathlib import Path

import numpy as np
import pytest

from eval import features
from eval.features.interface import Features
from eval.fid_sweep import Request, sweep
from eval.scores import class_names, results, while_training
from sgflow_jax import build, generate
from sgflow_jax.files import disk
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import classes
from tests import tiny


def _sweep(workdir, **request):
    return sweep([workdir], Request(calls=(2,), num_samples=40, **request))[workdir]


COUNTS = (100, 1, 1, 1, 50, 1, 1, 1, 1, 20)


@pytest.fixture
def uneven(monkeypatch):
    """Digits have almost as many examples of each class; here they have COUNTS."""
    found = classes.Classes(tuple("0123456789"), COUNTS)
    monkeypatch.setattr(classes, "of_run", lambda config, _: found if config.model.num_classes else classes.Classes())


def test_labels_have_the_frequencies_of_the_data_and_come_from_the_seed(labelled_run, uneven, monkeypatch, undrawn):
    plans, batches = [], generate.batches
    monkeypatch.setattr(generate, "batches", lambda net, plan, n: plans.append(plan) or batches(net, plan, n))
    (first,) = _sweep(labelled_run, seeds=(3,))
    assert first.identity.labels == "data" and first.identity.guidance == 1
    (plan,) = plans
    np.testing.assert_array_equal(plan.labels, generate.draw_labels(3, 40, COUNTS))
    made = generate.examples(build.restore_net(labelled_run), plan, 40)
    (kept,) = disk.read_arrays(results.examples_file(labelled_run, first.identity), "examples")
    np.testing.assert_array_equal(kept, made)


def test_rows_of_an_older_version_with_even_labels_are_measured_again(labelled_run, digits_run, undrawn):
    for workdir, again in ((labelled_run, True), (digits_run, False)):
        (new,) = _sweep(workdir)
        old = new.flat()
        for name in ("guidance", "guidance_interval", "labels"):
            del old[name]
        file = Path(workdir) / "eval" / "fid.jsonl"
        file.write_text(json.dumps({**old, "value": 12345.0}) + "\n")
        assert [each.scores.value for each in _sweep(workdir)] == [new.scores.value if again else 12345.0]
        assert len(results.read(workdir)) == 1 + again


def test_guided_rows_are_kept_apart(labelled_run, undrawn, capsys):
    plain = _sweep(labelled_run)
    guided = [_sweep(labelled_run, guidance=g)[0] for g in (Guidance(3000.0), Guidance(3000.0, 0.25, 1.0))]
    told = [(each.identity.guidance, each.identity.guidance_interval) for each in (*plain, *guided)]
    assert told == [(1.0, ""), (3000.0, ""), (3000.0, "0.25-1")]
    assert len({each.scores.value for each in (*plain, *guided)}) == 3
    assert len(results.read(labelled_run)) == 3
    assert _sweep(labelled_run, guidance=Guidance(3000.0)) == guided[:1]
    names = [
        f.stem.rpartition("labels_data")[2] for f in sorted((Path(labelled_run) / "eval" / "samples").glob("*.npz"))
    ]
    assert sorted(names) == ["", "-guidance_3000", "-guidance_3000-0.25-1"]
    assert "note:" not in capsys.readouterr().out  # euler is no heuristic


def test_guidance_without_a_null_class_is_rejected_before_anything_is_written(digits_run):
    with pytest.raises(InputError, match="null class"):
        _sweep(digits_run, guidance=Guidance(2.0))
    assert not (Path(digits_run) / "eval").exists()


def test_distances_while_training_have_labels_as_in_the_data(uneven, monkeypatch):
    config, plans = tiny.labelled(), []
    config.eval.steps, config.eval.train_samples, config.seed = (1, 2), 30, 5
    monkeypatch.setattr(
        generate, "batches", lambda net, plan, n: plans.append(plan) or iter([np.eye(8, dtype=np.uint8)])
    )
    monkeypatch.setattr(while_training.reference, "extractor", lambda *_: features.make("pixels"))
    monkeypatch.setattr(while_training.Sample, "of", lambda batches, extract: while_training.Sample())
    monkeypatch.setattr(while_training.processes, "on_first", lambda function: None)
    monkeypatch.setattr(
        while_training.reference, "of_data", lambda *_: type("Target", (), {"statistics": lambda _: None})()
    )
    while_training.scorer(config)(None)
    assert [plan.calls for plan in plans] == [1, 2]
    for plan in plans:
        np.testing.assert_array_equal(plan.labels, generate.draw_labels(5, 30, COUNTS))
    config.model.num_classes, config.model.label_dropout = 0, 0.0
    while_training.scorer(config)(None)
    assert plans[-1].labels is None


def test_names_of_classes_are_kept_beside_rows_with_class_counts(labelled_run, digits_run, monkeypatch, undrawn):
    """Also for a network without labels."""
    pixels = features.make("pixels")
    for workdir in (labelled_run, digits_run):
        _sweep(workdir)
        assert class_names.read(workdir) == ()
    counted = Features("classifier", pixels.extract, "abc", "", lambda found: np.zeros(len(found), int), 10)
    monkeypatch.setattr("eval.reference.extractor", lambda *_: counted)
    for workdir in (labelled_run, digits_run):
        (found,) = _sweep(workdir)
        assert found.scores.class_counts == (40, *[0] * 9)
        assert class_names.read(workdir) == tuple("0123456789")
        assert _sweep(workdir) == [found]  # and a second sweep leaves them as they are


def test_damaged_names_are_no_names(tmp_path):
    class_names.write(str(tmp_path), ("a", "écureuil, \n"))
    assert class_names.read(str(tmp_path)) == ("a", "écureuil, \n")
    for text in ("", "{", "[1]", '"ab"'):
        (tmp_path / "eval" / "classes.json").write_text(text)
        assert class_names.read(str(tmp_path)) == ()
