"""Guidance in every objective, its value and its gradient, against an independent evaluation; what it needs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import models, objectives
from sgflow_jax.guidance import Guidance, with_null
from sgflow_jax.interfaces import InputError
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective
from tests import independent
from tests.independent import CLASSES, LABELLED, At, of_classes
from tests.method.test_models import MLP, bound
from tests.method.test_objectives import CASES

WEIGHT, INTERVAL = 1.7, (0.15, 0.7)
OWN = np.array([0, 2, 1, 1, 2, 0, 1, 2])
LABEL = np.array([0, CLASSES, CLASSES, 1, 2, 0, 1, 2])
ON, OFF = slice(0, None, 2), slice(1, None, 2)  # as `Strata` has them; both have an example of the null class
ALIKE = (OWN[:, None] == OWN[None]) | (LABEL[:, None] == CLASSES)
KEY = jax.random.key(1)


@dataclasses.dataclass(frozen=True)
class Net:
    """`independent.network` with labels."""

    params: dict
    label: np.ndarray = dataclasses.field(default_factory=lambda: LABEL)

    def __call__(self, t, u, x):
        return independent.network(jnp, of_classes(self.params, self.label), t, u, x)

    def restrict(self, select):
        return Net(self.params, select(self.label))

    def unconditional(self):
        return Net(self.params, np.full_like(self.label, CLASSES))

    def has_class(self):
        return jnp.asarray(self.label != CLASSES)


def _chosen():
    """The first case of each objective with a teacher and without, and every case of a mean over the batch."""
    cases, seen = [], set()
    for case in CASES:
        kind = case.name, case.teacher, case.options.get("estimator"), case.options.get("continuous")
        new = kind not in seen or "velocity_target" in case.options
        if new and not case.step and (case.name != "consistency" or case.teacher):
            cases.append(case)
            seen.add(kind)
    return cases


def _expected(case, objective, drawn, x0, x1, params, teacher):
    """The loss [B] of each example as a function of its parameters, by `independent`."""
    batch = [x1[alike] for alike in ALIKE] if objective.velocity_target == "batch" else None

    def at(rows, t, u, s=None):
        label = LABEL[rows]

        def guide(t, x, v):
            return independent.guided(WEIGHT, INTERVAL, params, label, t, x, v)

        def taught(t, x):
            v = independent.F(of_classes(teacher, label), t, t, x)
            return independent.guided(WEIGHT, INTERVAL, teacher, label, t, x, v)

        more = {"teacher": taught if case.teacher else None, "guide": guide, "s": s}
        data = None if batch is None else batch[rows]
        return At.of(t, u, x0[rows], x1[rows], independent.PATHS[objective.interpolant], data, **more)

    def losses(loss, rows, at):
        return lambda moved: loss(of_classes(moved, LABEL[rows]), of_classes(params, LABEL[rows]), at)

    if not isinstance(objective, FlowMapObjective):
        points, s = (drawn, None) if not hasattr(drawn, "s") else (drawn.here, np.asarray(drawn.s))
        t, every = np.asarray(points.t), slice(None)
        return losses(case.expected, every, at(every, t, np.ones_like(t), s))

    on, off = drawn
    t, u = np.asarray(off.t), np.asarray(off.u)
    s = t + np.asarray(off.uniform) * (u - t)
    diagonal = losses(independent.flow_matching, ON, at(ON, np.asarray(on.t), np.asarray(on.t)))
    # `independent.fmm` starts at u, the code at t.
    rest = losses(case.expected, OFF, at(OFF, u, t) if case.name == "fmm" else at(OFF, t, u, s))
    return lambda moved: np.stack([diagonal(moved), rest(moved)], axis=1).ravel()


@pytest.mark.parametrize("case", _chosen(), ids=lambda case: case.label)
def test_value_and_gradient_equal_an_independent_evaluation(case, x64):
    rng = np.random.default_rng(0)
    params, teacher = independent.parameters(rng, LABELLED), independent.parameters(rng, LABELLED)
    x0, x1 = rng.standard_normal((2, len(LABEL), independent.D))
    interval = {"guidance_start": INTERVAL[0], "guidance_end": INTERVAL[1]}
    objective = objectives.make(case.name, **case.options, guidance=WEIGHT, **interval)
    drawn = objective.draw(KEY, x0, x1, 0, ALIKE)
    expected = _expected(case, objective, drawn, x0, x1, params, teacher)

    def per_example(params):
        return objective.loss(Net(params), drawn, Net(teacher) if case.teacher else None).per_example

    np.testing.assert_allclose(per_example(params), expected(params), rtol=1e-8)

    gradient = jax.grad(lambda p: jnp.sum(per_example(p)))(jax.tree.map(jnp.asarray, params))
    directions = [independent.parameters(rng, LABELLED) for _ in range(3)]
    null = {**jax.tree.map(np.zeros_like, params), "labels": np.eye(CLASSES + 1)[:, [CLASSES]] * np.ones((1, 5))}
    for direction in [*directions, null]:  # the last is zero but for the null class
        along = independent.slope(
            lambda h, direction=direction: np.sum(expected({k: params[k] + h * direction[k] for k in params}))
        )
        found = sum(np.sum(gradient[k] * direction[k]) for k in params)
        np.testing.assert_allclose(found, along, rtol=1e-6, atol=1e-8)


def test_every_objective_has_a_case_and_times_on_both_sides_of_the_interval(x64):
    assert {case.name for case in _chosen()} == set(objectives.names())
    drawn = objectives.make("sgflow").draw(KEY, *np.zeros((2, len(LABEL), 2)), 0)
    for t, label in ((drawn.diagonal.t, LABEL[ON]), (drawn.off_diagonal.t, LABEL[OFF])):
        inside = (INTERVAL[0] <= t) & (t <= INTERVAL[1])
        assert 0 < np.sum(inside[label != CLASSES]) < np.sum(label != CLASSES)


def test_weight_and_interval_by_hand():
    guidance = Guidance(3.0, 0.25, 0.75)
    t = jnp.array([0.0, 0.25, 0.5, 0.75, 0.7501, 1.0])
    np.testing.assert_array_equal(guidance.at(t), [1, 3, 3, 3, 1, 1])
    assert guidance.at(t).dtype == t.dtype
    mixed = guidance.mix(t[1:], jnp.full((5, 2), 5.0), jnp.full((5, 2), 1.0))
    np.testing.assert_array_equal(mixed[:, 0], [13, 13, 13, 5, 5])
    assert not Guidance(1.0, 0.25, 0.75).on and Guidance(0.0).on
    for start, end in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.6, 0.4)):
        with pytest.raises(InputError, match=f"from {start} to {end}: use two times"):
            Guidance(2.0, start, end)
        with pytest.raises(InputError, match=f"from {start} to {end}: use two times"):
            objectives.make("sgflow", guidance_start=start, guidance_end=end)


@pytest.mark.parametrize("name", objectives.names())
def test_weight_1_changes_no_bit(name):
    """Nor does a weight at times when it does not act. No null class is needed for weight 1."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: a.astype(np.float32), independent.parameters(rng, LABELLED))
    x0, x1 = jax.random.normal(KEY, (2, len(LABEL), independent.D))

    def loss(net, **options):
        return objectives.make(name, **options)(net, x0, x1, KEY, alike=ALIKE).per_example

    plain = loss(Net(params))
    np.testing.assert_array_equal(loss(Net(params), guidance=1.0, guidance_end=0.5), plain)
    without = lambda t, u, x: Net(params, LABEL[: len(t)])(t, u, x)  # noqa: E731
    np.testing.assert_array_equal(loss(without, guidance=1.0), loss(without))
    if name != "consistency":
        np.testing.assert_array_equal(loss(Net(params), guidance=3.0, guidance_start=1 - 2.0**-20), plain)


def test_a_guided_network_by_hand():
    """Also for a part of the batch, where every example keeps its label."""
    net = Net({"W": np.zeros((4, 5)), "V": np.eye(5, 2), "labels": np.arange(20.0).reshape(4, 5) / 20})
    t, x = jnp.full(len(LABEL), 0.5), jnp.zeros((len(LABEL), 2))
    v = np.tanh(np.arange(20.0).reshape(4, 5) / 20)[:, :2]
    expected = v[CLASSES] + 2.5 * (v[LABEL] - v[CLASSES])
    guided = Guidance(2.5).of(net)
    np.testing.assert_allclose(guided(t, t, x), expected, rtol=1e-6)
    np.testing.assert_allclose(guided.restrict(lambda a: a[OFF])(t[OFF], t[OFF], x[OFF]), expected[OFF], rtol=1e-6)
    assert Guidance().of(net) is net


def test_labels_are_replaced_by_the_null_class_at_the_share_that_is_asked_for():
    own = jnp.arange(10_000) % 3
    label, _ = with_null(KEY, own[:10], 0.0, 3)
    np.testing.assert_array_equal(label, own[:10])
    label, _ = jax.jit(with_null, static_argnums=(2, 3))(KEY, own, 0.1, 3)
    dropped = np.asarray(label == 3)
    np.testing.assert_array_equal(label[~dropped], own[~dropped])
    for c in range(3):  # whatever the class
        assert abs(np.mean(dropped[np.asarray(own) == c]) - 0.1) < 4 * np.sqrt(0.09 / 3_333)


def test_the_data_that_an_example_may_have():
    own = jnp.array([0, 1, 0, 1, 1])
    keys = (jax.random.key(k) for k in range(100))
    label, alike = next(
        found for found in (with_null(key, own, 0.5, 2) for key in keys) if found[0].tolist() == [0, 2, 0, 1, 2]
    )
    np.testing.assert_array_equal(alike, [[1, 0, 1, 0, 0], [1] * 5, [1, 0, 1, 0, 0], [0, 1, 0, 1, 1], [1] * 5])


def test_what_guidance_needs():
    x0, x1 = jnp.zeros((2, 4, 2))
    objective = objectives.make("sgflow", guidance=2.0)
    label = jnp.arange(4) % 3
    for options in ({"num_classes": 3}, {}):
        net = bound("mlp", {**MLP, **options}, (2,), label)
        with pytest.raises(InputError, match="null class: train with labels and model.label_dropout"):
            objective(net, x0, x1, KEY)
        with pytest.raises(InputError, match="null class"):
            Guidance(2.0).of(net)
    with pytest.raises(InputError, match="null class: bind labels"):
        objective(lambda t, u, x: x, x0, x1, KEY)
    unbound = bound("mlp", {**MLP, "num_classes": 3, "label_dropout": 0.1}, (2,), label).replace(label=None)
    with pytest.raises(InputError, match="pass label"):
        Guidance(2.0).of(unbound)

    consistency = objectives.make("consistency", guidance=2.0)
    net = models.BoundNet(None, None)
    with pytest.raises(InputError, match="consistency trains no velocity.*: give a teacher, or guidance 1"):
        consistency(net, x0, x1, KEY)
