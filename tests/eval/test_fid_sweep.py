"""The sweep on tiny runs: what it writes, what it measures once, and what it rejects."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sgflow_jax
from eval import reference
from eval.features import make as make_features
from eval.features.interface import Features
from eval.fid_sweep import Request, sweep
from eval.frechet import frechet_distance
from eval.scores import results, seeds, training_data
from sgflow_jax import build, data, generate, sample_run, trainer
from sgflow_jax.data import fingerprint
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access
from tests import tiny
from tests.commands import ROOT
from tests.rows import copies


def _sweep(workdir, **request):
    return sweep([workdir], Request(**request))[workdir]


def test_writes_rows_table_curve_and_samples(digits_run):
    rows = _sweep(digits_run, calls=(1, 2))
    folder = Path(digits_run) / "eval"
    lines = [json.loads(line) for line in (folder / "fid.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == [row.identity.calls for row in rows] == [1, 2]
    scores = dataclasses.asdict(rows[0].scores)
    assert lines[0] == {
        "objective": "flow_matching",
        "checkpoint_step": 2,
        "parameters": "ema",
        "network": rows[0].identity.network,
        "steps": 1,
        "method": "euler",
        "grid": "uniform",
        "num_samples": 80,
        "seed": 0,
        "network_precision": "highest",
        "version": results.VERSION,
        "data": "digits",
        "split": "train",
        "fingerprint": fingerprint.of_arrays(data.make("digits").images),
        "reference_count": 1797,
        "features": "pixels",
        "weights": "",
        "resize": "",
        "moments": "",
        "guidance": 1.0,
        "guidance_interval": "",
        "labels": "",
        "sgflow_jax": sgflow_jax.__version__,
        **scores,
    }
    assert all(scores[name] is not None for name in ("value", "kernel", "kernel_error", "precision", "recall"))
    assert training_data.read(digits_run) == access.open(digits_run).data
    table = (folder / "fid_table.md").read_text()
    assert table.count("\n") == 4 and f"{rows[1].scores.value:.4g}" in table
    assert (folder / "fid_curve.png").exists()
    for steps in (1, 2):
        file = results.examples_file(digits_run, rows[steps - 1].identity)
        with Image.open(file.with_suffix(".png")) as picture:
            assert picture.size == (402, 402)
        with np.load(file) as arrays:
            assert arrays["examples"].shape == (64, 8, 8, 1)


def test_the_value_is_the_distance_of_what_is_sampled(digits_run):
    """Recomputed in one piece from the npz that --mode=sample writes."""
    (row,) = _sweep(digits_run, calls=(2,), seeds=(3,))
    out = Path(digits_run) / "samples.npz"
    request = sample_run.Request(calls=(2, 1), num_samples=80, method=None, seed=3)
    sample_run.sample(digits_run, tiny.digits("flow_matching"), str(out), request)
    with np.load(out) as arrays:
        made = arrays["steps_2"]
    with np.load(results.examples_file(digits_run, row.identity)) as arrays:
        np.testing.assert_array_equal(arrays["examples"], made[:64])

    def gaussian(images):
        flat = images.reshape(len(images), -1) / 127.5 - 1
        return flat.mean(axis=0), np.cov(flat.T)

    expected = frechet_distance(*gaussian(data.make("digits").images), *gaussian(made))
    assert row.scores.value == pytest.approx(expected, rel=1e-5)


def test_known_rows_are_skipped(line_run, monkeypatch, undrawn):
    first = _sweep(line_run, calls=(1, 3))
    calls = []
    batches = generate.batches
    monkeypatch.setattr(generate, "batches", lambda net, plan, n: calls.append(plan) or batches(net, plan, n))
    again = _sweep(line_run, calls=(3, 1))
    assert not calls and again == first
    _sweep(line_run, calls=(1, 3, 4))
    assert {plan.calls for plan in calls} == {4}
    _sweep(line_run, calls=(1,), seeds=(0, 1))
    rows = [json.loads(line) for line in (Path(line_run) / "eval" / "fid.jsonl").read_text().splitlines()]
    assert [(row["steps"], row["seed"]) for row in rows] == [(1, 0), (3, 0), (4, 0), (1, 1)]


def test_several_resize_rules_share_the_samples(line_run, monkeypatch, undrawn):
    """And a sweep that is asked for one more rule measures that one alone."""
    scale = {"tf1": 1, "half_pixel": 2}
    monkeypatch.setattr(
        reference,
        "extractor",
        lambda _, name, weights, rule: Features("inception", lambda x: scale[rule] * x, "abc", rule),
    )
    plans, seen, batches = [], [], generate.batches

    def counted(net, plan, count):
        plans.append(plan.calls)
        for batch in batches(net, plan, count):
            seen.append(len(batch))
            yield batch

    monkeypatch.setattr(generate, "batches", counted)
    (alone,) = _sweep(line_run, calls=(1,), resize=("tf1",))
    rows = _sweep(line_run, calls=(1, 2), resize=("tf1", "half_pixel"))
    assert plans == [1, 1, 2] and sum(seen) == 3 * 100
    assert [(row.identity.calls, row.identity.reference.resize) for row in rows] == [
        (1, "tf1"),
        (1, "half_pixel"),
        (2, "tf1"),
        (2, "half_pixel"),
    ]
    assert rows[0] == alone
    for one, other in (rows[:2], rows[2:]):
        assert other.scores.value == pytest.approx(4 * one.scores.value, rel=1e-6)


def test_checkpoints_parameters_grids_and_methods_have_rows_of_their_own(line_run, undrawn):
    how = [{"checkpoints": (4, 6)}, {"parameters": "raw"}, {"grid": "0,.40,1"}, {"method": "heun"}]
    rows = [row for each in how for row in _sweep(line_run, calls=(2,), num_samples=60, **each)]
    assert [row.identity.checkpoint_step for row in rows] == [4, 6, 6, 6, 6]
    assert len({row.scores.value for row in rows}) == 5
    assert rows[3].identity.grid == "0,0.4,1" and rows[3] in results.read(line_run)


def test_runs_are_sampled_from_the_same_noise(line_run, tmp_path, undrawn):
    (other,) = copies(line_run, tmp_path, "b")
    (one,), (two,) = sweep([line_run, other], Request(calls=(1,), seeds=(5,))).values()
    assert one == two


def test_a_run_that_was_trained_again_is_measured_again(line_run, tmp_path, undrawn):
    workdir = shutil.copytree(line_run, tmp_path / "run", ignore=lambda *_: {"eval"})
    (old,) = _sweep(str(workdir), calls=(1,))
    _sweep(str(workdir), calls=(1,), checkpoints=(4,))
    shutil.rmtree(workdir / "checkpoints")
    config = tiny.mixture()
    config.seed = 1
    (workdir / "config.json").unlink()
    trainer.train(config, str(workdir))
    (new,) = _sweep(str(workdir), calls=(1,))
    assert new.identity.network != old.identity.network and new.scores.value != old.scores.value
    # Only the rows of the checkpoint that no longer exists are removed.
    assert [row.identity.checkpoint_step for row in results.read(str(workdir))] == [4, 6]


def test_runs_of_one_objective_keep_their_names(line_run, tmp_path):
    other = shutil.copytree(line_run, tmp_path / "other", ignore=lambda *_: {"eval"})
    out = tmp_path / "both"
    command = [sys.executable, "-m", "eval.fid_sweep", f"--workdirs={line_run},{other},{other}/", "--steps=1"]
    done = subprocess.run([*command, f"--out={out}", "--num_samples=30"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "[2/2]" in done.stdout, done.stderr
    table = (out / "fid_table.md").read_text()
    assert table.count("\n") == 4 and f"| {Path(line_run).name} |" in table and "| other |" in table
    assert (out / "fid_curve.png").exists() and f"wrote {out}/fid_curve.png" in done.stdout
    # Each value once, in the one table: both runs are one network.
    value = results.plus_minus(*seeds.mean_and_spread(results.read(str(other))))
    assert done.stdout.count(value) == 2 and f"     1  {value}  {value}" in done.stdout


def test_samples_that_are_damaged_are_replaced(line_run, tmp_path, undrawn):
    (run,) = copies(line_run, tmp_path, "a")
    (first,) = _sweep(run, calls=(1,))
    file = results.examples_file(run, first.identity)
    whole = file.read_bytes()
    file.write_bytes(whole[:90] + b"?" * 30 + whole[120:])
    _sweep(run, calls=(1,), num_samples=70)
    assert len(disk.read_arrays(file, "examples")[0]) == 70


@pytest.mark.parametrize(
    "request_, match",
    [
        (Request(calls=(1,), num_samples=1), "use 2 to"),
        (Request(calls=(1,), features="vgg"), "'vgg'"),
        (Request(calls=(1,), method="rk4"), "'rk4'"),
        (Request(calls=(3,), method="heun"), "heun cannot spend 3"),
        (Request(calls=(3,), grid="cubic"), "'cubic'"),
        (Request(checkpoints=(2, 5)), "no checkpoint of step 5"),
        (Request(calls=(1,), features="classifier"), "mixture1d consists of points"),
        (Request(calls=(1,), resize="tf1"), "pixels has no resize to choose"),
        (Request(calls=(1,), reference="nowhere.npz"), "nowhere.npz is missing"),
    ],
)
def test_impossible_requests_are_rejected_before_anything_is_written(request_, match, line_run, tmp_path):
    (run,) = copies(line_run, tmp_path, "a")
    with pytest.raises(InputError, match=match):
        sweep([run], request_)
    assert not (Path(run) / "eval").exists()


def test_a_workdir_without_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        sweep([str(tmp_path / "none")], Request(calls=(1,)))
    assert not (tmp_path / "none").exists()


def test_workdirs_of_different_data_are_not_compared(line_run, digits_run):
    with pytest.raises(InputError, match="different data .digits, mixture1d.: measure them separately"):
        sweep([line_run, digits_run], Request(calls=(1,)))


@pytest.mark.parametrize(
    "field, value, match",
    [
        ("eval.features", "classifier", "different features .classifier, pixels.: choose with --features"),
        ("eval.num_samples", 7, "different numbers of samples .100, 7.: choose with --num_samples"),
        ("data.data_dir", "elsewhere", "different data called mixture1d, by fingerprint"),
    ],
)
def test_workdirs_that_cannot_share_a_reference(field, value, match, line_run, tmp_path, monkeypatch):
    (other,) = copies(line_run, tmp_path, "b")
    open_run, source = access.open, build.source

    def differing(workdir, *rest, **options):
        opened = open_run(workdir, *rest, **options)
        if workdir == other:
            opened.config.update_from_flattened_dict({field: value})
        return opened

    monkeypatch.setattr(access, "open", differing)
    monkeypatch.setattr(
        build, "source", lambda config: data.make("checkerboard") if config.data.data_dir else source(config)
    )
    with pytest.raises(InputError, match=match):
        sweep([line_run, other], Request(calls=(1,)))


def test_a_reference_file_must_fit_and_is_used(line_run, tmp_path, undrawn):
    extract, file = make_features("pixels"), tmp_path / "reference.npz"

    def save(config):
        target = reference.of_data(config.data, extract)
        reference.save(file, target.identity, target.statistics())

    save(tiny.digits())
    with pytest.raises(InputError, match="reference.npz is of digits pixels .*, but mixture1d pixels .* is needed"):
        _sweep(line_run, calls=(1,), reference=str(file))
    save(tiny.mixture())
    one = _sweep(line_run, calls=(1,), num_samples=70)
    (Path(line_run) / "eval" / "fid.jsonl").unlink()
    assert _sweep(line_run, calls=(1,), num_samples=70, reference=str(file)) == one
