"""Comparisons with exact maps, from rows to tables and figures; ablations; the paper's Table 1."""

import dataclasses
import json

import numpy as np
import pytest
from absl import flags

from eval import ablations, table1, toy_table
from eval.exact import errors, plots, toy_runs
from eval.tables import variants
from sgflow_jax import data, generate, sampling, trainer
from sgflow_jax.interfaces import InputError
from tests import tiny


@pytest.fixture
def small(monkeypatch):
    """Short runs of a small network, compared at a few points."""
    exact = errors.targets
    monkeypatch.setattr(errors, "targets", lambda name, path="linear": exact(name, path, 200))
    monkeypatch.setattr(toy_table, "TRIAL_STEPS", 200)
    config_of = toy_runs.config_of

    def small_config(*arguments):
        config = config_of(*arguments)
        config.model.depth, config.model.width, config.data.batch_size = 1, 8, 64
        return config

    monkeypatch.setattr(toy_runs, "config_of", small_config)


class Exact:
    """A network that is the exact average velocity."""

    def __init__(self, name):
        self._oracle = data.oracle(name)
        self.model = dataclasses.make_dataclass("Model", [("num_classes", int, 0)], frozen=True)()

    def __call__(self, t, u, x):
        return self._oracle.average_velocity(t, u, x)


def test_the_exact_map_has_no_error(monkeypatch):
    net, config = Exact("mixture1d"), tiny.mixture()
    against = errors.targets("mixture1d", num_samples=500)

    def examples(net, plan, count):
        noise = np.random.default_rng(1).standard_normal((count, 1)).astype(np.float32)
        return np.asarray(sampling.sample(net, noise, sampling.time_grid(plan.calls)))

    monkeypatch.setattr(generate, "examples", examples)
    scores = errors.score(net, config, against)
    assert max(scores["one_jump"], scores["all_jumps"], scores["path"]) < 1e-3
    assert all(scores[f"distance_{n}"] < 0.3 for n in sampling.CALLS)


def test_distances_by_hand():
    a, b = np.array([[0.0], [1.0]]), np.array([[3.0], [2.0]])
    assert errors._sliced_wasserstein(a, b) == pytest.approx(2)
    shift = np.array([3.0, 4.0])
    cloud = np.random.default_rng(0).standard_normal((500, 2))
    # The mean of |<shift, direction>| over directions is 2 |shift| / pi.
    assert errors._sliced_wasserstein(cloud, cloud + shift) == pytest.approx(10 / np.pi, rel=0.1)


def _settings(objective, budget="steps", amount=100, name="mixture1d"):
    return {"data": name, "objective": objective, "budget": budget, "amount": amount, "seed": 0}


@pytest.mark.slow
def test_rows_of_each_kind_of_objective(tmp_path, small):
    found = []
    for objective in ("sgflow(correction=0.5)", "consistency", "shortcut(num_steps=2)", "flow_matching"):
        settings = _settings(objective)
        found.append({**settings, **toy_table.measure(settings, tmp_path)})
    sgflow, consistency, shortcut, flow_matching = found
    assert all(np.isfinite(sgflow[name]) for name in ("one_jump", "all_jumps", "distance_10", "path"))
    assert consistency["all_jumps"] is None and np.isfinite(consistency["distance_10"])
    assert shortcut["distance_4"] is None and np.isfinite(shortcut["distance_2"])
    assert np.isfinite(flow_matching["distance_10"]) and sgflow["num_steps"] == 100
    assert not list((tmp_path / "runs").iterdir())

    text = toy_table.tables(toy_table.summary(found + [{**sgflow, "seed": 1, "one_jump": 9.0}]))
    assert "mixture1d, 100 steps of training" in text and "±" in text and "| shortcut(num_steps=2) |" in text
    assert plots.toy_maps(found)[:4] == b"\x89PNG"


@pytest.mark.slow
def test_equal_time_and_two_dimensions(tmp_path, small):
    settings = _settings("flow_matching", "seconds", 0.5, "eight_gaussians")
    row = toy_table.measure(settings, tmp_path)
    assert row["num_steps"] % toy_runs.PER_CALL == 0 and row["num_steps"] > 0
    assert (tmp_path / "exact_eight_gaussians_linear.npz").exists()
    assert plots.toy_maps([{**settings, **row}])[:4] == b"\x89PNG"


@pytest.mark.parametrize("fault", [trainer.Stopped, generate.NotFinite])
def test_a_run_that_diverges_is_a_row(fault, tmp_path, small, monkeypatch):
    def diverge(config, workdir, make_scorer):
        raise fault("the loss is not finite")

    monkeypatch.setattr(trainer, "train", diverge)
    settings = _settings("esd")
    row = {**settings, **toy_table.measure(settings, tmp_path)}
    assert "not finite" in row["diverged"]
    assert "| esd | - |" in toy_table.tables(toy_table.summary([row]))
    assert plots.toy_maps([row])[:4] == b"\x89PNG"


def _flags(module, *arguments):
    values = flags.FlagValues()
    with pytest.MonkeyPatch.context() as patch:
        for define in ("list", "integer", "float", "string"):
            original = getattr(flags, f"DEFINE_{define}")
            patch.setattr(flags, f"DEFINE_{define}", lambda *a, f=original, **k: f(*a, **k, flag_values=values))
        module.define_flags()
    values(["program", *arguments])
    return values


def test_wanted_rows():
    everything = toy_table.wanted(_flags(toy_table, "--seeds=0,1"))
    assert len(everything) == 2 * 2 * 2 * len(variants.own())
    assert {row["amount"] for row in everything if row["budget"] == "steps"} == {6000, 10_000}
    for argument in ("--objectives=nope", "--data=cifar10", "--budgets=days", "--seeds=a", "--num_steps=33"):
        with pytest.raises(InputError):
            toy_table.wanted(_flags(toy_table, argument))

    both = ablations.wanted(_flags(ablations, "--seeds=0"))
    assert {row["time_scale"] for row in both} == set(ablations.TIME_SCALES)
    assert {"sgflow(correction=0.0)", "sgflow(correction_steps=1500)"} <= {row["objective"] for row in both}
    for argument in ("--data=cifar10", "--data=", "--toy_steps=33", "--objectives=nope"):
        with pytest.raises(InputError):
            ablations.wanted(_flags(ablations, argument))


@pytest.mark.slow
def test_ablations(tmp_path, small):
    found = []
    for objective, scale in (("sgflow", 10.0), ("sgflow(correction_steps=100)", 10.0), ("lsd", 1.0)):
        settings = {"data": "mixture1d", "objective": objective, "time_scale": scale, "num_steps": 100, "seed": 0}
        found.append({**settings, **ablations.measure(settings, tmp_path)})
    digits = {**found[0], "data": "digits", "one_jump": None, "diverged": "lost"}
    text = ablations.table([*found, digits])
    assert "### mixture1d, 100 training steps" in text and "### digits" in text
    pictures = ablations.figures([*found, digits])
    assert {name: picture[:4] for name, picture in pictures.items()} == {
        "time_scale.png": b"\x89PNG",
        "correction.png": b"\x89PNG",
    }


@pytest.mark.slow
def test_ablations_measure_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "CHANNELS", 4)
    settings = {"data": "digits", "objective": "flow_matching", "time_scale": 1.0, "num_steps": 2, "seed": 0}
    original = ablations._config

    def config(settings):
        config = original(settings)
        config.data.batch_size, config.eval.num_samples, config.eval.batch_size = 8, 80, 64
        return config

    monkeypatch.setattr(ablations, "_config", config)
    row = ablations.measure(settings, tmp_path)
    assert row["diverged"] is None and set(row) == {"diverged", "distance_1", "distance_4"}


def test_table1(tmp_path, monkeypatch):
    monkeypatch.setattr(
        variants, "own", lambda: [variants.Variant(n) for n in ("sgflow", "fmm", "consistency", "shortcut")]
    )
    with pytest.raises(InputError, match="python -m eval.stationarity"):
        table1.measure(tiny.mixture(), tmp_path)
    row = {"objective": "sgflow", "exact": {"z": 1.5}}
    (tmp_path / "stationarity.json").write_text(json.dumps([row, {**row, "exact": {"z": 2.5}}]))
    toy = {"objective": "sgflow", "data": "mixture1d", "budget": "steps", "diverged": None, "path": 0.125}
    (tmp_path / "toy_table.json").write_text(json.dumps([toy]))
    sgflow, fmm, consistency, shortcut = table1.measure(tiny.mixture(), tmp_path)
    assert (sgflow["z"], sgflow["path"], sgflow["no inverse"], fmm["no inverse"]) == ("2.5", "0.125", "yes", "no")
    assert (fmm["z"], fmm["nested"], consistency["any steps"]) == ("not measured", "yes", "by returning to noise")
    assert shortcut["any steps"] == "powers of 2 up to 128"
    assert float(sgflow["FLOPs"]) > 1.5


@pytest.mark.parametrize("name, free", [("sgflow", True), ("lsd", False), ("fmm", False), ("consistency", True)])
def test_simulation_free(name, free):
    assert table1.simulation_free(variants.parse(name).make()) is free
