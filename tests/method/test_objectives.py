"""Every objective, its value and its gradient, against an independent evaluation (`independent`)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import objectives
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonal
from tests import independent
from tests.independent import At, parameters, square

B = 8
UNIFORM = np.linspace(0.1, 0.9, B)


class Case(NamedTuple):
    """An objective and its expected loss, or only its residual if the loss is the residual squared."""

    name: str
    options: dict = {}
    loss: Callable | None = None
    residual: Callable | None = None
    teacher: bool = False
    step: int = 0

    def expected(self, params, frozen, at):
        return self.loss(params, frozen, at) if self.loss else square(self.residual(params, frozen, at))

    @property
    def label(self):
        options = [f"{key}={value}" for key, value in self.options.items()] + ["teacher"] * self.teacher
        return " ".join([self.name, *options, f"step={self.step}" * bool(self.step)])


def _with(function, **fixed):
    return functools.partial(function, **fixed)


def _sgflow(lam, teacher=False, step=0, **options):
    return Case("sgflow", options, _with(independent.sgflow, lam=lam), independent.sgflow_residual, teacher, step)


def _split(lam, teacher=False, step=0, **options):
    loss = _with(independent.sgflow_split, lam=lam)
    return Case("sgflow", {"estimator": "split", **options}, loss, None, teacher, step)


def _squares(name, **residuals):
    """For every value of stopgrad, with a teacher (where the objective takes one) and without."""
    teachers = (False, True) if objectives.make(name).takes_teacher else (False,)
    return [
        Case(name, {"stopgrad": stopgrad}, None, residual, teacher)
        for stopgrad, residual in residuals.items()
        for teacher in teachers
    ]


_SCHEDULE = {"correction": 1.0, "final_correction": 0.25, "correction_steps": 8}
_DISCRETE = {"initial_intervals": 4, "final_intervals": 16, "doubling_steps": 100}
_ICT = {"distance": "pseudo_huber", "huber_scale": 0.2, "interval": "noise_level"}
_C = 0.2 * np.sqrt(independent.D)
_CTM = {"loss": _with(independent.ctm, intervals=5), "residual": _with(independent.ctm_residual, intervals=5)}
_SHORTCUT = {"residual": _with(independent.shortcut, num_steps=4)}
_COMPOUND = {"loss": independent.improved_mean_flow, "residual": independent.improved_mean_flow_residual}

CASES = [
    Case("flow_matching", {}, independent.flow_matching),
    Case("flow_matching", {"velocity_target": "batch"}, independent.flow_matching),
    _sgflow(1.0),
    _sgflow(1.0, teacher=True),
    _sgflow(0.25, correction=0.25),
    _sgflow(0.0, correction=0.0),
    _sgflow(0.625, step=4, **_SCHEDULE),
    _sgflow(0.25, step=20, **_SCHEDULE),
    _sgflow(0.5, step=4, correction=0.0, final_correction=1.0, correction_steps=8),
    _split(1.0),
    _split(1.0, teacher=True),
    _split(0.25, correction=0.25),
    _split(0.0, correction=0.0),
    _split(0.625, step=4, **_SCHEDULE),
    Case("mean_flow", {}, independent.mean_flow),
    Case("mean_flow", {}, independent.mean_flow, teacher=True),
    Case("improved_mean_flow", {}, **_COMPOUND),
    Case("improved_mean_flow", {}, **_COMPOUND, teacher=True),
    *_squares("esd", full=independent.esd_full, convex=independent.esd_convex, none=independent.esd_none),
    Case("slim_esd", {}, residual=independent.slim_esd),
    Case("slim_esd", {}, residual=independent.slim_esd, teacher=True),
    *_squares("lsd", convex=independent.lsd_convex, none=independent.lsd_none),
    Case("slim_lsd", {}, residual=independent.slim_lsd),
    Case("slim_lsd", {}, residual=independent.slim_lsd, teacher=True),
    *_squares("psd", convex=independent.psd_midpoint_convex, none=independent.psd_midpoint_none),
    Case("psd", {"split": "uniform", "stopgrad": "convex"}, residual=independent.psd_uniform_convex),
    Case("psd", {"split": "uniform", "stopgrad": "none"}, residual=independent.psd_uniform_none),
    Case("fmm", {}, independent.fmm),
    Case("fmm", {"interpolant": "trigonometric"}, independent.fmm),
    Case("fmm", {"velocity_target": "batch"}, independent.fmm),
    Case("consistency", _DISCRETE, independent.consistency_discrete),
    Case("consistency", {**_DISCRETE, "interpolant": "trigonometric"}, independent.consistency_discrete),
    Case("consistency", _DISCRETE, independent.consistency_discrete, step=150),
    Case("consistency", _DISCRETE, independent.consistency_distilled, teacher=True),
    Case("consistency", {**_DISCRETE, "velocity_target": "batch"}, independent.consistency_distilled, step=1_000),
    Case("consistency", {"continuous": True}, independent.consistency_continuous),
    Case("consistency", {"continuous": True, "velocity_target": "batch"}, independent.consistency_continuous),
    Case("consistency", {"continuous": True}, independent.consistency_continuous, teacher=True),
    Case("consistency", {**_DISCRETE, **_ICT}, _with(independent.consistency_ict, c=_C), step=150),
    Case(
        "consistency",
        {"continuous": True, "distance": "pseudo_huber", "huber_scale": 0.2},
        lambda *given: independent.huber(independent.consistency_continuous(*given), _C),
    ),
    Case("ctm", {"intervals": 5}, **_CTM),
    Case("ctm", {"intervals": 5}, **_CTM, teacher=True),
    Case("shortcut", {"num_steps": 4}, **_SHORTCUT),
    Case("shortcut", {"num_steps": 4}, **_SHORTCUT, teacher=True),
]
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)


class Given(NamedTuple):
    """The inputs of a case: parameters, examples, the loss [B] as a function of the parameters, the residual."""

    params: dict
    at: At
    per_example: Callable
    residual: np.ndarray | None


def _jax_net(params):
    return lambda t, u, x: independent.network(jnp, params, t, u, x)


def times_in_domain(objective, rng):
    """Some (t, u) in the objective's domain, in both orders where it allows both."""
    if objective.step_counts is not None:
        size = np.array([1, 1 / 2, 1 / 4, 1 / 4, 1 / 2, 1 / 4, 1 / 4, 1])
        t = size * np.array([0, 1, 0, 3, 0, 1, 2, 0])
        return t, t + size
    t = rng.uniform(0.05, 0.6, B)
    u = t + rng.uniform(0.05, 0.35, B)
    swap = (np.arange(B) % 3 == 0) & ("both" in getattr(objective, "directions", ()))
    return np.where(swap, u, t), np.where(swap, t, u)


def _given(case):
    """The objective on examples that `case.expected` gets too."""
    rng = np.random.default_rng(0)
    params, teacher = parameters(rng), parameters(rng)
    x0, x1 = rng.standard_normal((2, B, independent.D))
    objective = objectives.make(case.name, **case.options)
    teacher_net = _jax_net(teacher) if case.teacher else None
    more = {
        "path": independent.PATHS[objective.interpolant],
        "batch": x1 if objective.velocity_target == "batch" else None,
        "teacher": (lambda t, x: independent.F(teacher, t, t, x)) if case.teacher else None,
    }
    seen = []

    def recording(t, u, x):
        seen.append((t, u))
        return x

    if isinstance(objective, FlowMapObjective):
        at = At.of(*times_in_domain(objective, rng), x0, x1, **more)
        # `independent.fmm` starts at u, the code at t.
        start = At.of(at.u, at.t, x0, x1, **more) if case.name == "fmm" else at
        examples = OffDiagonal(*map(jnp.asarray, (*start[:4], UNIFORM)), case.step)

        def loss(net):
            return objective.off_diagonal(net, examples, teacher_net)

        if case.options.get("split") == "uniform":
            loss(recording)
            at = at._replace(s=np.asarray(seen[0][1]))
            assert np.all((at.s - at.t) * (at.u - at.s) > 0) and not np.allclose(at.s, (at.t + at.u) / 2, atol=1e-2)
        return Given(params, at, lambda p: loss(_jax_net(p)).per_example, loss(_jax_net(params)).residual)

    def per_example(net):
        return objective(net, x0, x1, jax.random.key(3), case.step, teacher_net).per_example

    if not case.options.get("continuous"):
        per_example(recording)
        t, u = (np.asarray(a) for a in seen[0])
        s = np.asarray(seen[1][0]) if case.name == "consistency" else None
    else:
        t = np.asarray(objective.make_law().single(jax.random.key(3), B, jnp.float64))
        u, s = np.ones(B), None
    return Given(params, At.of(t, u, x0, x1, s=s, **more), lambda p: per_example(_jax_net(p)), None)


@EVERY_CASE
def test_value_and_gradient_equal_an_independent_evaluation(case, x64):
    params, at, per_example, residual = _given(case)

    np.testing.assert_allclose(per_example(params), case.expected(params, params, at), rtol=1e-8)
    assert (residual is None) == (case.residual is None)
    if residual is not None:
        np.testing.assert_allclose(np.abs(residual), np.abs(case.residual(params, params, at)), rtol=1e-8, atol=1e-11)

    gradient = jax.grad(lambda p: jnp.sum(per_example(p)))(jax.tree.map(jnp.asarray, params))
    for key, shape in independent.SHAPES.items():
        for index in np.ndindex(shape):

            def along(h, key=key, index=index):
                moved = {k: v.copy() for k, v in params.items()}
                moved[key][index] += h
                return np.sum(case.expected(moved, params, at))

            np.testing.assert_allclose(gradient[key][index], independent.slope(along), rtol=1e-6, atol=1e-8)


def test_every_objective_has_a_case():
    assert {case.name for case in CASES} == set(objectives.names())


@pytest.mark.parametrize("step, intervals", [(0, 4), (99, 4), (100, 8), (200, 16), (10**9, 16)])
def test_consistency_compares_neighbours_on_a_grid_that_doubles(step, intervals, x64):
    at = _given(Case("consistency", _DISCRETE, step=step)).at
    np.testing.assert_array_equal(at.t * intervals, np.round(at.t * intervals))
    np.testing.assert_allclose((at.s - at.t) * intervals, 1)
    np.testing.assert_array_equal(at.u, 1)
    assert len(set(at.t)) > 2 and np.all(at.s <= 1)


def _calls(case, monkeypatch):
    """The network calls of the independent loss: (whether with the differentiated parameters, t, u, x).

    Twice: unchanged, and with the differentiated parameters moved.
    """
    params, at, _, _ = _given(case)
    evaluate = independent.F

    def calls_with(differentiated):
        calls = []

        def recording(given, t, u, x):
            calls.append((given is differentiated, t, u, x))
            return evaluate(given, t, u, x)

        monkeypatch.setattr(independent, "F", recording)
        case.expected(differentiated, params, at)
        return calls

    return calls_with(dict(params)), calls_with({key: value + 0.1 for key, value in params.items()})


def _an_input_moves(before, after):
    return any(np.any(x != y) for (*_, x), (*_, y) in zip(before, after, strict=True))


@pytest.mark.parametrize("case", [case for case in CASES if not case.teacher], ids=lambda case: case.label)
def test_nested_is_true_where_a_gradient_passes_through_one_call_into_another(case, monkeypatch, x64):
    """There, and only there, the input of a call in the independent loss moves with the differentiated parameters."""
    assert objectives.make(case.name, **case.options).nested == _an_input_moves(*_calls(case, monkeypatch))


@EVERY_CASE
def test_regression_is_true_where_only_one_prediction_has_a_gradient(case, monkeypatch, x64):
    """Only one call uses the differentiated parameters, and no other call depends on it."""
    before, after = _calls(case, monkeypatch)
    points = {np.column_stack(point).tobytes() for differentiated, *point in before if differentiated}
    alone = len(points) == 1 and not _an_input_moves(before, after)
    assert objectives.make(case.name, **case.options).regression == alone
