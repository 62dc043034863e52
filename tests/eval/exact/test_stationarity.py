"""Every objective stops at the exact map and is moved from elsewhere, and the audit that says so catches wrong ones."""

import json

import jax
import numpy as np
import pytest

from eval import stationarity
from eval.exact import audit, plots
from eval.tables import store, variants
from sgflow_jax import objectives
from sgflow_jax.interfaces import InputError


def _row(name, law, max_samples=2**15, tolerance=0.02):
    settings = {"objective": name, "law": law, "seed": 3, "max_samples": max_samples, "tolerance": tolerance}
    return {**settings, **audit.measure(settings)}


@pytest.fixture
def without_response(monkeypatch):
    """Most tests do not look at the response to a wrong velocity, which is a second compilation."""
    monkeypatch.setattr(stationarity, "_response", lambda *_: None)


@pytest.mark.parametrize("name", [n for n in objectives.names() if variants.parse(n).make().exact])
def test_stops_at_the_truth_and_nowhere_near(name, x64, without_response):
    assert audit.verdict(_row(name, "gaussian", max_samples=2**16)) == "stops"


@pytest.mark.parametrize("name", ["sgflow(estimator=split)", "mean_flow(velocity_target=batch)", "lsd(direction=both)"])
def test_stops_on_a_mixture(name, x64, without_response):
    row = _row(name, "mixture")
    assert row["exact"]["z"] < 4 and row["perturbed"]["z"] > 8 and row["velocity"]["z"] > 8


@pytest.mark.parametrize("name", audit.CONTROLS)
def test_controls_are_caught(name, x64):
    assert audit.verdict(_row(name, "mixture", 2**16, 0.001)) == "control, caught"


def test_a_symmetric_law_does_not_see_the_adaptive_weight(x64):
    row = _row("control: mean_flow(weight=adaptive)", "gaussian")
    assert row["exact"]["z"] < 4 and "not visible" in audit.verdict(row)


def test_the_bias_of_a_discretisation_shrinks(x64, without_response):
    for name in ("shortcut", "ctm"):
        found = [audit.bias(_row(each, "gaussian")) for each in audit.SERIES[name][:2]]
        assert found[1] < found[0] / 2, name


def test_sgflow_tolerates_a_wrong_velocity_and_esd_does_not(x64):
    """The gradient at the truth grows like the square of the velocity's error, and like the error."""
    orders = [_row(name, "gaussian")["response"]["order"] for name in ("sgflow", "esd")]
    np.testing.assert_allclose(orders, [2, 1], atol=0.35)


@pytest.mark.parametrize("options", [{"interpolant": "trigonometric"}, {"time_law": "logit_normal"}])
def test_options_keep_the_stationary_point(options, x64, without_response):
    (key, value), *_ = options.items()
    assert audit.verdict(_row(f"sgflow({key}={value})", "gaussian")) == "stops"


def test_a_correction_on_its_way_keeps_the_stationary_point(x64):
    oracle = audit.LAWS["gaussian"][0]("linear")
    objective = objectives.make("sgflow", correction_steps=2 * audit.TRAINED, final_correction=0.0)
    gradients = audit.gradients(objective, oracle, 2, taught=False)
    zero = jax.numpy.zeros(6)
    found = np.asarray(gradients(zero, 1.0, 0.0, jax.random.split(jax.random.key(0), 16)))
    assert np.all(np.abs(found.mean(axis=0)) < 4 * found.std(axis=0) / np.sqrt(15))


def test_expectations_are_sampled_until_they_are_known():
    draws = lambda keys: jax.vmap(lambda key: 5 + jax.random.normal(key, (3,)))(keys)  # noqa: E731
    chunk = audit.BATCH * audit.CHUNK
    found = audit.expect(draws, 0, lambda e: e.standard_error.max() < 0.08, 10**9)
    assert 0.05 < found.standard_error.max() < 0.08 and abs(found.gradient.mean() - 5) < 0.3
    assert found.samples % chunk == 0 and found.samples > audit.MIN_CHUNKS * chunk
    assert audit.expect(draws, 0, lambda e: True, 10**9).samples == audit.MIN_CHUNKS * chunk
    assert audit.expect(draws, 0, lambda e: False, 3 * chunk).samples == 3 * chunk


def test_noise_in_units_of_the_signal():
    row = _made_up("esd", "mixture", 1.0)
    row["exact"].update(standard_error=[9.0] * 3 + [2.0] * 3, samples=10)
    row["perturbed"].update(gradient=[7.0] * 3 + [5.0] * 3, standard_error=[1.0] * 6)
    assert audit.noise(row) == pytest.approx(10 * 3 * 4 / (3 * (25 - 1)))
    row["perturbed"].update(standard_error=[4.0] * 6)
    assert audit.noise(row) is None


def _made_up(name, law, z, elsewhere=50.0, error=1.0):
    def at(z):
        return {"z": z, "gradient": [z] * 6, "standard_error": [error] * 6, "trace": 6.0, "samples": 1}

    response = {"errors": [0.2, 0.4], "norms": [1.0, 2.0], "standard_error": 0.1, "order": 1.0}
    places = {"exact": at(z), "perturbed": at(elsewhere), "velocity": at(elsewhere)}
    return {"objective": name, "law": law, **places, "response": response}


def test_verdicts_and_their_picture():
    control = next(iter(audit.CONTROLS))
    expected = {
        ("esd", 1.0, 50.0): "stops",
        ("esd", 5.0, 50.0): "FAILS",
        ("esd", 1.0, 3.0): "FAILS: a wrong map does not move it",
        ("ctm", 30.0, 3.0): "FAILS: a wrong map does not move it",
        ("esd", 1.0, 50.0, 6.0): "unclear: too few samples",
        ("ctm", 30.0, 50.0): "biased",
        ("ctm", 1.0, 50.0): "bias not visible",
        (control, 30.0, 50.0): "control, caught",
        (control, 3.0, 50.0): "CONTROL MISSED",
    }
    found = [_made_up(name, "mixture", *z) for name, *z in expected]
    assert [audit.verdict(row) for row in found] == list(expected.values())
    assert store.markdown(stationarity.COLUMNS, found).count("\n") == len(found) + 2
    assert plots.stationarity(found)[:4] == b"\x89PNG"


def test_what_is_wanted():
    everything = stationarity.wanted([], ["mixture", "gaussian"], 0, 100, 0.1)
    names = {settings["objective"] for settings in everything}
    assert names >= set(objectives.names()) | set(audit.CONTROLS) and len(everything) == 2 * len(names)
    one = stationarity.wanted(["psd", "esd(stopgrad=none)", "lsd(weight_offset=2.0)"], ["mixture"], 0, 100, 0.1)
    assert {s["objective"] for s in one} >= {
        "psd",
        "psd(split=uniform)",
        "esd(stopgrad=none)",
        "lsd(weight_offset=2.0)",
    }
    assert not {"esd", "lsd"} & {s["objective"] for s in one}
    json.dumps(everything)
    with pytest.raises(InputError, match="--laws=cauchy"):
        stationarity.wanted([], ["cauchy"], 0, 100, 0.1)
