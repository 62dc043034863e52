"""The sweep on tiny runs: what it writes, measures once, and refuses."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import flax.struct
import jax
import numpy as np
import pytest
from PIL import Image

from eval import fid_sweep, reference
from eval.exact import errors as exact_errors
from eval.features import make as make_features
from eval.fid_sweep import Request, sweep
from eval.frechet import frechet_distance
from eval.scores import measure, results
from sgflow_jax import build, data, generate, models, sample_run, trainer
from sgflow_jax.data import fingerprint
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access
from tests import tiny
from tests.commands import ROOT


def _sweep(workdir, **request):
    return sweep([workdir], Request(**request))[workdir]


def test_writes_rows_table_curve_and_samples(digits_run):
    rows = _sweep(digits_run, steps=(1, 2))
    folder = Path(digits_run) / "eval"
    lines = [json.loads(line) for line in (folder / "fid.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == [row.identity.steps for row in rows] == [1, 2]
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
        **scores,
    }
    assert all(scores[name] is not None for name in ("value", "kernel", "kernel_error", "precision", "recall"))
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
    (row,) = _sweep(digits_run, steps=(2,), seeds=(3,))
    out = Path(digits_run) / "samples.npz"
    request = sample_run.Request(steps=(2, 1), num_samples=80, method=None, seed=3)
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


def test_what_is_there_is_not_measured_again(line_run, monkeypatch):
    first = _sweep(line_run, steps=(1, 3))
    calls = []
    batches = generate.batches
    monkeypatch.setattr(generate, "batches", lambda net, plan, n: calls.append(plan) or batches(net, plan, n))
    again = _sweep(line_run, steps=(3, 1))
    assert not calls and again == first
    _sweep(line_run, steps=(1, 3, 4))
    assert {plan.network_calls for plan in calls} == {4}
    _sweep(line_run, steps=(1,), seeds=(0, 1))
    rows = [json.loads(line) for line in (Path(line_run) / "eval" / "fid.jsonl").read_text().splitlines()]
    assert [(row["steps"], row["seed"]) for row in rows] == [(1, 0), (3, 0), (4, 0), (1, 1)]


def test_checkpoints_parameters_and_grids_are_rows_of_their_own(line_run):
    rows = _sweep(line_run, steps=(2,), checkpoints=(4, 6), num_samples=60)
    rows += _sweep(line_run, steps=(2,), parameters="raw", num_samples=60)
    rows += _sweep(line_run, steps=(2,), grid="quadratic", num_samples=60)
    rows += _sweep(line_run, steps=(2,), method="heun", num_samples=60)
    assert [row.identity.checkpoint_step for row in rows] == [4, 6, 6, 6, 6]
    assert len({row.scores.value for row in rows}) == 5


def test_several_workdirs_have_the_same_noise_and_one_summary(line_run, tmp_path, monkeypatch):
    other = shutil.copytree(line_run, tmp_path / "other", ignore=lambda *_: {"eval"})
    found = sweep([line_run, str(other)], Request(steps=(1,), seeds=(5,)))
    (one,), (two,) = found.values()
    assert one == two
    assert (other / "eval" / "fid_curve.png").exists()


def test_a_run_that_was_trained_again_is_measured_again(line_run, tmp_path):
    workdir = shutil.copytree(line_run, tmp_path / "run", ignore=lambda *_: {"eval"})
    (old,) = _sweep(str(workdir), steps=(1,))
    _sweep(str(workdir), steps=(1,), checkpoints=(4,))
    shutil.rmtree(workdir / "checkpoints")
    config = tiny.mixture()
    config.seed = 1
    (workdir / "config.json").unlink()
    trainer.train(config, str(workdir))
    (new,) = _sweep(str(workdir), steps=(1,))
    assert new.identity.network != old.identity.network and new.scores.value != old.scores.value
    # What was measured of the checkpoint that is there no more has gone, the rest is left.
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
    value = results.plus_minus(*results.mean_and_spread(results.read(str(other))))
    assert done.stdout.count(value) == 2 and f"     1  {value}  {value}" in done.stdout


def test_a_sweep_that_was_killed_goes_on_to_the_same_file(line_run, tmp_path):
    """kill -9 as soon as the first row is there, and the same command again."""
    undisturbed, killed = (shutil.copytree(line_run, tmp_path / n, ignore=lambda *_: {"eval"}) for n in ("a", "b"))
    sweep([str(undisturbed)], Request(steps=(1, 2, 4), seeds=(0, 1)))

    command = [sys.executable, "-m", "eval.fid_sweep", f"--workdir={killed}", "--steps=1,2,4", "--seeds=0,1"]
    # As many devices as here: another number may round otherwise.
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
    file = killed / "eval" / "fid.jsonl"
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while not (file.exists() and file.read_text()):
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()
    left = len(file.read_text().splitlines())
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and 1 <= left < 6 and f"[1/{6 - left}]" in done.stdout, done.stderr
    assert file.read_bytes() == (undisturbed / "eval" / "fid.jsonl").read_bytes()


def test_a_row_is_scored_and_written_while_the_next_is_sampled(line_run, tmp_path, monkeypatch):
    one, other = (str(shutil.copytree(line_run, tmp_path / n, ignore=lambda *_: {"eval"})) for n in ("a", "b"))
    for steps in (1, 2, 4):
        _sweep(one, steps=(steps,))
    sampled = {steps: threading.Event() for steps in (1, 2, 4)}
    scores, batches, scored = measure.scores, generate.batches, []

    def patient_scores(sample, statistics):
        scored.append(len(scored))
        assert scored[-1] == 2 or sampled[(2, 4)[scored[-1]]].wait(30)
        return scores(sample, statistics)

    def patient_batches(net, plan, count):
        sampled[plan.network_calls].set()
        yield from batches(net, plan, count)
        before = {1: 0, 2: 1, 4: 2}[plan.network_calls]
        deadline = time.monotonic() + 30
        while len(results.read(other)) < before:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    monkeypatch.setattr(measure, "scores", patient_scores)
    monkeypatch.setattr(generate, "batches", patient_batches)
    _sweep(other, steps=(1, 2, 4))
    assert results.read(other) == results.read(one) and len(scored) == 3


def test_rows_that_cannot_be_written_cost_their_own_run_only(line_run, tmp_path, monkeypatch):
    one, other = (str(shutil.copytree(line_run, tmp_path / n, ignore=lambda *_: {"eval"})) for n in ("a", "b"))
    refused, append = [], results.append

    def refuse(workdir, row):
        if workdir == other:
            return append(workdir, row)
        refused.append(row.identity.steps)
        raise InputError("the disk is full")

    monkeypatch.setattr(results, "append", refuse)
    with pytest.raises(InputError, match=f"^{one}, step 6: 4 rows not measured: the disk is full$"):
        sweep([one, other], Request(steps=(1, 2, 4, 8), num_samples=20))
    assert refused == [1] and len(results.read(other)) == 4


def _gone(run):
    shutil.rmtree(Path(run) / "checkpoints" / "6")


def _cut_short(run):
    for file in (Path(run) / "checkpoints" / "6" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])


def _rows_damaged(run):
    (Path(run) / "eval").mkdir(exist_ok=True)
    (Path(run) / "eval" / "fid.jsonl").write_text("half a row")


@pytest.mark.parametrize(
    "harm, match",
    [
        (_gone, "has no checkpoint of step 6: it has 2, 4"),
        (shutil.rmtree, "has no checkpoint"),
        (_cut_short, "6 is damaged"),
        (_rows_damaged, "line 1, is not a row.*; .* has no new table and curve"),
        (None, "the run was trained again meanwhile: sweep it again"),
    ],
)
def test_a_run_that_cannot_be_read_any_more_costs_its_own_rows_only(
    harm, match, line_run, tmp_path, monkeypatch, capsys
):
    """Harm comes after all checkpoints were found, and before those of the first run are measured."""
    runs = [str(shutil.copytree(line_run, tmp_path / n, ignore=lambda *_: {"eval"})) for n in ("a", "b")]
    restore, restored = build.restore, []

    def harmed(workdir, *rest, **options):
        restored.append(workdir)
        again = restored.count(runs[0]) == 2 and workdir == runs[0]
        if again and harm:
            harm(workdir)
        net, config, step = restore(workdir, *rest, **options)
        return (
            (net.replace(params=jax.tree.map(lambda p: 2 * p, net.params)) if again and not harm else net),
            config,
            step,
        )

    monkeypatch.setattr(build, "restore", harmed)
    found = fid_sweep.attempt(runs, Request(steps=(1,), num_samples=20))
    assert re.match(f"{runs[0]}, step 6: 1 row not measured: .*{match}", "; ".join(found.faults))
    fid_sweep._tell(found, str(tmp_path / "out"))
    told = capsys.readouterr().out
    assert "\n steps  " in told and f"wrote {tmp_path}/out/fid_curve.png" in told
    assert len(results.read(runs[1])) == 1
    for name in ("fid_curve.png", "fid_table.md", "samples.png"):
        assert (Path(runs[1]) / "eval" / name).exists()


def test_samples_that_are_damaged_are_replaced(line_run, tmp_path):
    run = str(shutil.copytree(line_run, tmp_path / "run", ignore=lambda *_: {"eval"}))
    (first,) = _sweep(run, steps=(1,))
    file = results.examples_file(run, first.identity)
    whole = file.read_bytes()
    file.write_bytes(whole[:90] + b"?" * 30 + whole[120:])
    _sweep(run, steps=(1,), num_samples=70)
    assert len(disk.read_arrays(file, "examples")[0]) == 70


@flax.struct.dataclass
class Exact(models.BoundNet):
    """The network that everything is measured against."""

    def __call__(self, t, u, x, label=None):
        return data.oracle("mixture1d").average_velocity(t, u, x)


def test_map_error_of_an_untrained_map_is_that_of_the_identity(line_run):
    """The tiny run has learnt nothing, so its error is about E |f(0, 1, x) - x|^2."""
    net, config, _ = build.restore(line_run)
    against = exact_errors.targets("mixture1d", num_samples=500)
    expected = np.sqrt(np.mean((against.path[-1] - against.noise) ** 2))
    assert exact_errors.score(net, config, against)["one_jump"] == pytest.approx(expected, rel=0.05)

    errors = exact_errors.score(Exact(net.model, None), config, against)
    assert max(errors[name] for name in ("one_jump", "all_jumps", "path")) < 1e-3
    assert max(errors[f"distance_{calls}"] for calls in sampling.CALLS) < 0.4


@pytest.mark.parametrize(
    "request_, match",
    [
        (Request(steps=(1,), num_samples=1), "use 2 to"),
        (Request(steps=(1,), features="vgg"), "'vgg'"),
        (Request(steps=(1,), method="rk4"), "'rk4'"),
        (Request(steps=(3,), method="heun"), "heun cannot spend 3"),
        (Request(steps=(3,), grid="cubic"), "'cubic'"),
        (Request(checkpoints=(2, 5)), "no checkpoint of step 5"),
        (Request(steps=(1,), features="classifier"), "mixture1d are points"),
        (Request(steps=(1,), resize="tf1"), "pixels has no resize to choose"),
        (Request(steps=(1,), reference="nowhere.npz"), "nowhere.npz is missing"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_written(request_, match, line_run, tmp_path):
    run = shutil.copytree(line_run, tmp_path / "run", ignore=lambda *_: {"eval"})
    with pytest.raises(InputError, match=match):
        sweep([str(run)], request_)
    assert not (run / "eval").exists()


def test_a_workdir_without_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        sweep([str(tmp_path / "none")], Request(steps=(1,)))
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match="exact map of digits is unknown"):
        exact_errors.targets("digits")


def test_workdirs_of_different_data_are_not_compared(line_run, digits_run):
    with pytest.raises(InputError, match="different data .digits, mixture1d.: measure them apart"):
        sweep([line_run, digits_run], Request(steps=(1,)))


@pytest.mark.parametrize(
    "field, value, match",
    [
        ("eval.features", "classifier", "different features .classifier, pixels.: choose with --features"),
        ("eval.num_samples", 7, "different numbers of samples .7, 80.: choose with --num_samples"),
        ("data.data_dir", "elsewhere", "different data called digits, by fingerprint"),
    ],
)
def test_workdirs_that_would_not_be_measured_alike(field, value, match, digits_run, tmp_path, monkeypatch):
    other = str(shutil.copytree(digits_run, tmp_path / "other", ignore=lambda *_: {"eval"}))
    restore, source = build.restore, build.source

    def differing(workdir, *rest, **options):
        net, config, step = restore(workdir, *rest, **options)
        if workdir == other:
            config.update_from_flattened_dict({field: value})
        return net, config, step

    def elsewhere(config, *rest):
        found = source(config, *rest)
        return dataclasses.replace(found, images=255 - found.images) if config.data.data_dir else found

    monkeypatch.setattr(build, "restore", differing)
    monkeypatch.setattr(build, "source", elsewhere)
    with pytest.raises(InputError, match=match):
        sweep([digits_run, other], Request(steps=(1,)))


def test_a_reference_of_other_data_is_refused(line_run, digits_run, tmp_path):
    config = access.open(digits_run).config
    target = reference.of_data(config, make_features("pixels"))
    file = tmp_path / "digits.npz"
    reference.save(file, target.identity, target.statistics())
    with pytest.raises(InputError, match="digits.npz is of digits pixels .*, and what is measured is mixture1d pixels"):
        _sweep(line_run, steps=(1,), reference=str(file))
    one, other = _sweep(digits_run, steps=(1,), num_samples=70), None
    (Path(digits_run) / "eval" / "fid.jsonl").unlink()
    other = _sweep(digits_run, steps=(1,), num_samples=70, reference=str(file))
    assert one == other


@flax.struct.dataclass
class Collapsed(models.BoundNet):
    """Gives the same example whatever the noise."""

    def __call__(self, t, u, x, label=None):
        return -x


def test_a_network_that_gives_one_example_only_is_named(line_run, monkeypatch, tmp_path):
    restore = build.restore
    other = str(shutil.copytree(line_run, tmp_path / "other", ignore=lambda *_: {"eval"}))

    def collapsed(workdir, *rest, **options):
        net, config, step = restore(workdir, *rest, **options)
        return (Collapsed(net.model, None) if workdir == line_run else net), config, step

    monkeypatch.setattr(build, "restore", collapsed)
    with pytest.raises(InputError, match=f"^{line_run}, 1 step: .*all 100 examples are the same"):
        sweep([line_run, other], Request(steps=(1,), seeds=(9,)))
    assert len(results.read(other)) == 1  # the others are measured all the same


def test_faults_are_told_in_the_order_of_the_rows(line_run, tmp_path, monkeypatch):
    """One is found as a row is scored, the next as one is sampled, the third as one is scored again."""
    runs = [str(shutil.copytree(line_run, tmp_path / n, ignore=lambda *_: {"eval"})) for n in ("a", "b", "c", "d")]
    restore, scores = build.restore, measure.scores

    def broken(workdir, *rest, **options):
        net, config, step = restore(workdir, *rest, **options)
        if workdir == runs[1]:
            net = net.replace(params=jax.tree.map(lambda p: p * np.nan, net.params))
        return (Collapsed(net.model, None) if workdir in (runs[0], runs[2]) else net), config, step

    def late_scores(sample, statistics):
        time.sleep(0.3)
        return scores(sample, statistics)

    monkeypatch.setattr(build, "restore", broken)
    monkeypatch.setattr(measure, "scores", late_scores)
    same = "1 step: the features of all 100 examples are the same.*"
    with pytest.raises(InputError, match=f"^{runs[0]}, {same}; {runs[1]}, 1 step: .*not finite.*; {runs[2]}, {same}"):
        sweep(runs, Request(steps=(1,)))
    assert [len(results.read(run)) for run in runs] == [0, 0, 0, 1]
