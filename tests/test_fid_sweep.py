"""The sweep on tiny runs: what it writes, measures once, and refuses."""

import json
from pathlib import Path

import flax.struct
import numpy as np
import pytest
from PIL import Image

from eval import map_error
from eval.features import make as make_features
from eval.fid_sweep import Request, sweep
from eval.frechet import frechet_distance
from sgflow_jax import build, data, generate, models, sample_run, trainer
from sgflow_jax.interfaces import InputError
from tests import tiny


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("digits"))
    trainer.train(tiny.digits("flow_matching"), workdir)
    return workdir


@pytest.fixture(scope="module")
def line_run(tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("line"))
    trainer.train(tiny.mixture(), workdir)
    return workdir


def test_writes_rows_table_curve_and_samples(digits_run):
    rows = sweep(digits_run, Request(steps=(1, 2)))
    folder = Path(digits_run) / "eval"
    lines = [json.loads(line) for line in (folder / "fid.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == [row.identity.steps for row in rows] == [1, 2]
    assert lines[0] == {
        "objective": "flow_matching",
        "checkpoint_step": 2,
        "parameters": "ema",
        "steps": 1,
        "method": "euler",
        "features": "pixels",
        "data": "digits",
        "num_samples": 80,
        "seed": 0,
        "reference_count": 1797,
        "value": rows[0].value,
    }
    table = (folder / "fid_table.md").read_text()
    assert table.count("\n") == 4 and f"{rows[1].value:.4g}" in table
    for name, size in [("fid_curve.png", None), ("samples_1.png", (402, 402)), ("samples_2.png", (402, 402))]:
        with Image.open(folder / name) as picture:
            assert size is None or picture.size == size


def test_the_value_is_the_distance_of_what_is_sampled(digits_run):
    """Recomputed in one piece from the npz that --mode=sample writes."""
    (row,) = sweep(digits_run, Request(steps=(2,), seed=3))
    out = Path(digits_run) / "samples.npz"
    request = sample_run.Request(steps=(2, 1), num_samples=80, method=None, seed=3)
    sample_run.sample(digits_run, tiny.digits("flow_matching"), str(out), request)
    with np.load(out) as arrays:
        assert set(arrays) == {"steps_1", "steps_2"}
        made = arrays["steps_2"]
    assert made.shape == (80, 8, 8, 1) and made.dtype == np.uint8

    def gaussian(images):
        flat = images.reshape(len(images), -1) / 127.5 - 1
        return flat.mean(axis=0), np.cov(flat.T)

    expected = frechet_distance(*gaussian(data.make("digits").images), *gaussian(made))
    assert row.value == pytest.approx(expected, rel=1e-5)


def test_what_is_there_is_not_measured_again(line_run, monkeypatch):
    first = sweep(line_run, Request(steps=(1, 3)))
    calls = []
    batches = generate.batches
    monkeypatch.setattr(generate, "batches", lambda net, plan, n: calls.append(plan) or batches(net, plan, n))
    again = sweep(line_run, Request(steps=(3, 1)))
    assert not calls and {row.value for row in again} == {row.value for row in first}
    sweep(line_run, Request(steps=(1, 3, 4)))
    assert {plan.network_calls for plan in calls} == {4}
    sweep(line_run, Request(steps=(1,), seed=1))
    rows = [json.loads(line) for line in (Path(line_run) / "eval" / "fid.jsonl").read_text().splitlines()]
    assert [(row["steps"], row["seed"]) for row in rows] == [(1, 0), (3, 0), (4, 0), (1, 1)]


@flax.struct.dataclass
class Exact(models.BoundNet):
    """The network that everything is measured against."""

    def __call__(self, t, u, x, label=None):
        return data.oracle("mixture1d").average_velocity(t, u, x)


def test_map_error_of_an_untrained_map_is_that_of_the_identity(line_run):
    """The tiny run has learnt nothing, so its error is about E |f(0, 1, x) - x|^2."""
    net, config, _ = build.restore(line_run)
    against = map_error.targets("mixture1d", num_samples=500)
    expected = np.sqrt(np.mean((against.path[-1] - against.noise) ** 2))
    assert map_error.score(net, config, against)["one_jump"] == pytest.approx(expected, rel=0.05)

    errors = map_error.score(Exact(net.model, None), config, against)
    assert max(errors[name] for name in ("one_jump", "all_jumps", "path")) < 1e-3
    assert max(errors[f"distance_{calls}"] for calls in map_error.CALLS) < 0.4


@pytest.mark.parametrize(
    "request_, match",
    [
        (Request(steps=(1,), num_samples=1), "at least 2"),
        (Request(steps=(1,), features="vgg"), "'vgg'"),
        (Request(steps=(1,), method="rk4"), "'rk4'"),
        (Request(steps=(3,), method="heun"), "heun cannot spend 3"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_written(request_, match, tmp_path):
    trainer.train(tiny.mixture(), str(tmp_path))
    with pytest.raises(InputError, match=match):
        sweep(str(tmp_path), request_)
    assert not (tmp_path / "eval").exists()


def test_a_workdir_without_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        sweep(str(tmp_path / "none"), Request(steps=(1,)))
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match="exact map of digits is not known"):
        map_error.targets("digits")


@pytest.mark.parametrize("out", ["samples.txt", "nowhere/samples.npz"])
def test_sampling_refuses_a_bad_out(out, line_run, tmp_path):
    with pytest.raises(InputError, match="ends in .npz"):
        request = sample_run.Request(steps=(1,), num_samples=4, method=None, seed=0)
        sample_run.sample(line_run, tiny.mixture(), str(tmp_path / out), request)


def test_pixels_are_scaled_to_one():
    images = np.array([0, 255, 51], np.uint8).reshape(3, 1, 1, 1)
    features = make_features("pixels")(images)
    np.testing.assert_allclose(features, [[-1], [1], [-0.6]], rtol=1e-6)
    assert features.dtype == np.float32
    points = np.array([[3.5, -2.0]], np.float32)
    np.testing.assert_array_equal(make_features("pixels")(points), points)
    with pytest.raises(InputError, match="'vgg'.*pixels"):
        make_features("vgg")
