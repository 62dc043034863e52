"""Every objective is stationary at the exact map and at no wrong one; the audit catches known-wrong objectives."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval import stationarity
from eval.exact import audit, plots
from eval.exact.controls import CONTROLS
from eval.tables import store, variants
from sgflow_jax import objectives
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError
from sgflow_jax.objectives.flow_matching import FlowMatching

UNCORRECTED, *_ = CONTROLS
UNGUIDED = [name for name in CONTROLS if audit.suits(name, "mixture")]
GUIDED = [variant.name for variant in variants.guided()]
EXACT = [name for name in objectives.names() if variants.parse(name).make().exact]
# Knobs of published recipes, in this project's direction of time.
CLIPPED = "time_law=logit_normal,logit_mean=0.6,logit_std=1.6,pairing=clipped,end_law=logit_normal,end_logit_mean=4.0"
RECIPES = [
    f"mean_flow({CLIPPED},end_logit_std=1.6,prob_diagonal=0.25)",
    "lsd(weight=learned,diagonal_law=start)",
]
ZERO, PERTURBED = np.zeros(audit.DIRECTIONS), np.full(audit.DIRECTIONS, audit.PERTURBATION)
# Objectives that stop on a law without symmetry too.
ON_A_MIXTURE = ["sgflow(estimator=split)", "mean_flow(velocity_target=batch)", "lsd(direction=both)"]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(audit, "BATCH", 256)


def _together(names, law):
    """(theta, truth, seed, max_samples) -> the expected gradient of each of many objectives on a law, by name.

    One program for all of them compiles in half the time of one for each.
    """
    make_law, dim = audit.LAWS[law]
    each = [audit.gradient(audit.make(name), make_law("linear"), dim) for name in names]
    compiled = audit.of_batches(lambda *at: jnp.concatenate([of_batch(*at) for of_batch in each]))

    def expectations(theta, truth, seed, max_samples):
        found = audit.expect(lambda keys: compiled(theta, truth, 0.0, keys), seed, lambda found: False, max_samples)
        parts = [np.split(a, len(names)) for a in (found.gradient, found.standard_error)]
        return {name: audit.Expectation(*part, found.samples).flat() for name, *part in zip(names, *parts, strict=True)}

    return expectations


def test_every_objective_stops_at_the_truth_and_nowhere_near(x64):
    together = _together([*EXACT, *RECIPES, UNCORRECTED], "gaussian")
    found = {
        "exact": together(ZERO, 1.0, 4, 1),
        "perturbed": together(PERTURBED, 1.0, 3, 1),
        "velocity": together(ZERO, 0.0, 3, 1),
    }
    said = {
        name: audit.verdict({"objective": name, "law": "gaussian", **{where: found[where][name] for where in found}})
        for name in found["exact"]
    }
    assert said == dict.fromkeys([*EXACT, *RECIPES], "stops") | {UNCORRECTED: "control, caught"}


def _row(name, law, max_samples=2**15, tolerance=0.02):
    settings = {"objective": name, "law": law, "seed": 3, "max_samples": max_samples, "tolerance": tolerance}
    return {**settings, **audit.measure(settings)}


def _at_the_truth(objective, law, max_samples, guidance=1.0, **more):
    make_law, dim = audit.LAWS[law]
    oracle = make_law("linear")
    if law == audit.LABELLED:
        oracle = dataclasses.replace(oracle, guidance=guidance)
    gradients = audit.of_batches(audit.gradient(objective, oracle, dim, **more))
    return audit.expect(lambda keys: gradients(ZERO, 1.0, 0.0, keys), 4, lambda found: False, max_samples).flat()


@pytest.mark.slow
def test_a_law_without_symmetry_keeps_the_truth_and_catches_every_control(x64):
    together = _together([*ON_A_MIXTURE, *UNGUIDED], "mixture")
    exact = together(ZERO, 1.0, 4, 2**16)
    perturbed, velocity = together(PERTURBED, 1.0, 3, 2**15), together(ZERO, 0.0, 3, 2**15)
    for name in ON_A_MIXTURE:
        assert exact[name]["z"] < 4 and perturbed[name]["z"] > 8 and velocity[name]["z"] > 8
    for name in UNGUIDED:
        assert audit.verdict({"objective": name, "law": "mixture", "exact": exact[name]}) == "control, caught"


@pytest.fixture
def few_batches(monkeypatch):
    """A batch of the labelled law costs the steps of a solver, whatever its size."""
    monkeypatch.setattr(audit, "BATCH", 1024)


@pytest.mark.slow
def test_guided_flow_matching_stops_at_the_guided_velocity_and_not_at_another(x64, few_batches):
    """Nor does the wrong sign of the guidance. The null class guided too, and a gradient through its velocity, keep the
    stationary point: there the residual has mean 0 given x_t."""
    options = {"guidance": 2.0, "velocity_target": "batch"}

    class Variant(FlowMatching):
        how: str

        def make_guidance(self):
            return Guidance(2 - self.guidance) if self.how == "wrong sign" else super().make_guidance()

        def guide(self, net, drawn):
            guided = super().guide(net, drawn)
            v_null = net.unconditional()(drawn.t, drawn.t, drawn.x_t)
            if self.how == "through null":
                change = (1 - self.guidance) * (v_null - jax.lax.stop_gradient(v_null))
                return guided._replace(dx_t=guided.dx_t + jnp.where(net.has_class()[:, None], change, 0))
            everywhere = self.make_guidance().mix(drawn.t, drawn.dx_t, jax.lax.stop_gradient(v_null))
            return guided._replace(dx_t=everywhere) if self.how == "null too" else guided

    def variant(how):
        return type("Made", (Variant,), {"how": how})(**options)

    def z(objective, guidance=2.0):
        return _at_the_truth(objective, "labelled", 2**14, guidance)["z"]

    right = FlowMatching(**options)
    assert z(right) < 4 and z(variant("null too")) < 4 and z(variant("through null")) < 4
    assert z(right, guidance=1.0) > 8 and z(variant("wrong sign")) > 8


@pytest.mark.slow
def test_a_symmetric_law_does_not_show_the_adaptive_weight(x64):
    name = "control: mean_flow(weight=adaptive)"
    row = {"objective": name, "law": "gaussian", "exact": _at_the_truth(audit.make(name), "gaussian", 2**14)}
    assert row["exact"]["z"] < 4 and "not visible" in audit.verdict(row)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shortcut", "ctm"])
def test_the_bias_of_a_discretisation_shrinks(name, x64):
    coarse, fine = (_at_the_truth(audit.make(each), "gaussian", 2**15) for each in audit.SERIES[name][:2])
    assert np.linalg.norm(fine["gradient"]) < np.linalg.norm(coarse["gradient"]) / 2


@pytest.mark.slow
def test_sgflow_tolerates_a_wrong_velocity_and_esd_does_not(x64):
    """The gradient at the truth grows with the square of the velocity's error for sgflow, and linearly for esd."""
    make_law, dim = audit.LAWS["gaussian"]
    responses = [audit._response(audit.make(name), make_law("linear"), dim, 3, 2**15) for name in ("sgflow", "esd")]
    orders = [response["order"] for response in responses]
    np.testing.assert_allclose(orders, [2, 1], atol=0.35)


@pytest.mark.slow
def test_another_interpolant_keeps_the_stationary_point(x64, monkeypatch):
    monkeypatch.setattr(audit, "_response", lambda *_: None)
    assert audit.verdict(_row("sgflow(interpolant=trigonometric)", "gaussian")) == "stops"


@pytest.mark.slow
def test_a_correction_on_its_way_keeps_the_stationary_point(x64):
    objective = objectives.make("sgflow", correction_steps=2 * variants.TRAINED, final_correction=0.0)
    assert _at_the_truth(objective, "gaussian", 2**14)["z"] < 4


@pytest.mark.slow
def test_an_average_that_is_wrong_moves_the_stationary_point(x64):
    """At an average that is right the loss is that of the network's own targets (test_targets)."""
    wrong = jnp.full(audit.DIRECTIONS, audit.PERTURBATION)
    assert _at_the_truth(audit.make("lsd(target=average)"), "gaussian", 2**14, average=wrong)["z"] > 8


@pytest.mark.slow
def test_dropout_keeps_the_stationary_point_on_the_diagonal_only(x64):
    """Errors of mean 0 in the place of dropout."""
    everywhere, diagonal = (audit.make(f"lsd(dropout={where})") for where in ("everywhere", "diagonal"))
    assert _at_the_truth(everywhere, "gaussian", 2**13, dropout=0.8)["z"] > 8
    assert _at_the_truth(diagonal, "gaussian", 2**13, dropout=0.8)["z"] < 4


@pytest.mark.slow
def test_the_pseudo_huber_distance_moves_the_stationary_point_on_an_asymmetric_law(x64):
    objective = objectives.make("consistency", continuous=True, distance="pseudo_huber")
    assert _at_the_truth(objective, "mixture", 2**14)["z"] > 8


def test_expectations_are_sampled_until_accepted():
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
    control = next(iter(CONTROLS))
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


def test_wanted_rows():
    everything = stationarity.wanted([], ["mixture", "gaussian"], 0, 100, 0.1)
    names = {settings["objective"] for settings in everything}
    assert names >= set(objectives.names()) | set(UNGUIDED) and len(everything) == 2 * len(names)
    one = stationarity.wanted(["psd", "esd(stopgrad=none)", "lsd(weight_offset=2.0)"], ["mixture"], 0, 100, 0.1)
    assert {s["objective"] for s in one} >= {
        "psd",
        "psd(split=uniform)",
        "esd(stopgrad=none)",
        "lsd(weight_offset=2.0)",
    }
    assert not {"esd", "lsd"} & {s["objective"] for s in one}
    json.dumps(everything)
    labelled = stationarity.wanted([], ["mixture", "labelled"], 0, 100, 0.1)
    guided = {s["objective"] for s in labelled if s["law"] == "labelled"}
    assert guided == {*GUIDED, *CONTROLS} - {*UNGUIDED} and not guided & {
        s["objective"] for s in labelled if s["law"] == "mixture"
    }
    assert {"sgflow", "mean_flow", "esd", "lsd", "psd"} <= {variants.parse(name).objective for name in GUIDED}
    with pytest.raises(InputError, match="--laws=cauchy"):
        stationarity.wanted([], ["cauchy"], 0, 100, 0.1)
