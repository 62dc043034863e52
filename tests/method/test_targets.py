"""Targets from another network than the prediction: the average of the parameters, or the network without dropout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import objectives
from sgflow_jax.interfaces import InputError, LabelledNet
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective, OffDiagonal
from tests import independent
from tests.independent import At, square
from tests.method.test_objective_batches import FLOW_MAPS
from tests.method.test_objectives import UNIFORM, B, times_in_domain

KEY = jax.random.key(3)


@dataclasses.dataclass(frozen=True)
class Net:
    """Four networks in one: the last parameters or their average, with dropout or without. versions: the parameters of
    each, by (average, dropped)."""

    versions: dict
    average: bool = False
    dropped: bool = True

    @property
    def params(self):
        return self.versions[self.average, self.dropped]

    def __call__(self, t, u, x):
        return independent.network(jnp, self.params, t, u, x)

    def without_dropout(self):
        return dataclasses.replace(self, dropped=False)

    def averaged(self):
        return dataclasses.replace(self, average=True)

    def log_loss(self, t, u):
        return jnp.sin(3 * t) + u


def _squares(residual):
    return lambda params, own, target, at: square(residual(params, target, at))


def _plain(loss, **fixed):
    return lambda params, own, target, at: loss(params, target, at, **fixed)


def _lsd(params, own, target, at):
    """The target's velocity, at the point where the network's own map ends."""
    v = independent.velocity(target, at, at.u, independent.f(own, at.t, at.u, at.x))
    return square(independent.lagrangian(params, at, at.x) - v)


def _slim_lsd(params, own, target, at):
    v = independent.velocity(target, at, at.u, independent.f(own, at.t, at.u, at.x))
    gap_d_u_F = independent.lagrangian(target, at, at.x) - independent.F(target, at.t, at.u, at.x)
    return square(independent.F(params, at.t, at.u, at.x) - (v - gap_d_u_F))


# Losses of the parameters that are differentiated, of their frozen value `own`, and of the target's parameters.
CASES = [
    ("sgflow", {}, _plain(independent.sgflow)),
    ("sgflow", {"estimator": "split"}, _plain(independent.sgflow_split)),
    ("mean_flow", {}, _plain(independent.mean_flow)),
    ("improved_mean_flow", {}, _plain(independent.improved_mean_flow)),
    ("esd", {}, _squares(independent.esd_convex)),
    ("esd", {"stopgrad": "full"}, _squares(independent.esd_full)),
    ("slim_esd", {}, _squares(independent.slim_esd)),
    ("lsd", {}, _lsd),
    ("slim_lsd", {}, _slim_lsd),
    ("psd", {}, _squares(independent.psd_midpoint_convex)),
    ("consistency", {"initial_intervals": 4}, _plain(independent.consistency_discrete)),
    ("consistency", {"continuous": True}, _plain(independent.consistency_continuous)),
    ("ctm", {"intervals": 5}, _plain(independent.ctm, intervals=5)),
    ("shortcut", {"num_steps": 4}, lambda p, own, target, at: square(independent.shortcut(p, target, at, 4))),
]
OPTIONS = {
    (True, False): {"target": "average", "dropout": "predictions"},
    (True, True): {"target": "average"},
    (False, False): {"dropout": "predictions"},
}


def _versions():
    rng = np.random.default_rng(0)
    return {kind: independent.parameters(rng) for kind in ((False, True), (True, True), (True, False), (False, False))}


def _given(objective):
    """The loss [B] as a function of a network, and the examples it uses."""
    rng = np.random.default_rng(5)
    x0, x1 = rng.standard_normal((2, B, independent.D))
    path = independent.PATHS["linear"]
    if isinstance(objective, FlowMapObjective):
        at = At.of(*times_in_domain(objective, rng), x0, x1, path)
        examples = OffDiagonal(*map(jnp.asarray, (*at[:4], UNIFORM)), 0)
        return lambda net: objective.off_diagonal(net, examples, None).per_example, at
    drawn = objective.draw(KEY, x0, x1, 0)
    t, s = (drawn.t, None) if objective.continuous else (drawn.here.t, np.asarray(drawn.s))
    at = At.of(np.asarray(t), np.ones(B), x0, x1, path, s=s)
    return lambda net: objective.loss(net, drawn, None).per_example, at


@pytest.mark.parametrize(
    "name, options, expected, kind",
    [(*case, (True, False)) for case in CASES] + [(*CASES[i], kind) for i in (2, 9) for kind in list(OPTIONS)[1:]],
)
def test_targets_are_those_of_the_other_network(name, options, expected, kind, x64):
    versions = _versions()
    params, target = versions[False, True], versions[kind]
    loss, at = _given(objectives.make(name, **options, **OPTIONS[kind]))

    def per_example(params):
        return loss(Net({**versions, (False, True): params}))

    np.testing.assert_allclose(per_example(params), expected(params, params, target, at), rtol=1e-8)
    direction = independent.parameters(np.random.default_rng(1))
    gradient = jax.grad(lambda p: jnp.sum(per_example(p)))(jax.tree.map(jnp.asarray, params))
    slope = independent.slope(
        lambda h: np.sum(expected({k: v + h * direction[k] for k, v in params.items()}, params, target, at))
    )
    np.testing.assert_allclose(sum(np.sum(gradient[k] * direction[k]) for k in params), slope, rtol=1e-6)


def test_every_objective_with_targets_has_a_case():
    assert {name for name, *_ in CASES} == {name for name in objectives.names() if objectives.make(name).has_targets}


@pytest.mark.parametrize("name", [name for name in FLOW_MAPS if name not in ("fmm", "ctm", "shortcut")])
def test_a_jump_of_length_0_is_flow_matching_or_nothing(name, x64):
    """Where pairs are clipped. What flow_map_objective says of each loss."""
    objective = objectives.make(name, pairing="clipped")
    rng = np.random.default_rng(4)
    x0, x1 = rng.standard_normal((2, B, independent.D))
    at = At.of(UNIFORM, UNIFORM, x0, x1, independent.PATHS["linear"])
    examples = OffDiagonal(*map(jnp.asarray, (*at[:4], UNIFORM)), 0)
    params = jax.tree.map(jnp.asarray, independent.parameters(rng))

    def net(params):
        return lambda t, u, x: independent.network(jnp, params, t, u, x)

    def flow_matching(params):
        return jnp.sum((net(params)(examples.t, examples.t, examples.x_t) - examples.dx_t) ** 2)

    found = jax.grad(lambda p: jnp.sum(objective.off_diagonal(net(p), examples, None).per_example))(params)
    learns = name in ("sgflow", "mean_flow", "improved_mean_flow")
    expected = jax.tree.map(lambda slope: slope * float(learns), jax.grad(flow_matching)(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)


def test_dropout_on_the_diagonal_only(x64):
    x0, x1 = jnp.asarray(np.random.default_rng(2).standard_normal((2, B, independent.D)))
    net = Net(_versions())
    on, off = objectives.make("lsd", dropout="diagonal"), objectives.make("lsd")
    found, everywhere, nowhere = on(net, x0, x1, KEY), off(net, x0, x1, KEY), off(net.without_dropout(), x0, x1, KEY)
    np.testing.assert_array_equal(found.per_example[::2], everywhere.per_example[::2])
    np.testing.assert_array_equal(found.per_example[1::2], nowhere.per_example[1::2])
    assert np.all(everywhere.per_example != nowhere.per_example)


def test_the_velocity_of_guidance_is_a_target(x64):
    class Labelled(Net, LabelledNet):
        def restrict(self, select):
            return self

        def unconditional(self):
            return self

        def has_class(self):
            return jnp.ones(B, bool)

    x0, x1 = jnp.asarray(np.random.default_rng(2).standard_normal((2, B, independent.D)))
    objective = objectives.make("flow_matching", guidance=2.0, target="average")
    net = Labelled(_versions())
    t, x_t, dx_t = objective.draw(KEY, x0, x1, 0)
    v_null = net.averaged()(t, t, x_t)
    expected = square(np.asarray(net(t, t, x_t) - (2 * dx_t - v_null)))
    np.testing.assert_allclose(objective(net, x0, x1, KEY).per_example, expected)


@pytest.mark.parametrize("name, options", [("psd", {"target": "average"}), ("lsd", {"weight": "learned"})])
def test_a_network_that_is_not_in_training_has_neither_average_nor_weight(name, options):
    with pytest.raises(InputError, match="a network in training"):
        objectives.make(name, **options)(lambda t, u, x: x, *jnp.ones((2, 4, 2)), KEY)


def test_a_learned_weight_by_hand(x64):
    """exp(-w) |.|^2 / D + w for each example, under the ramp. The metrics are those without a weight."""
    x0, x1 = jnp.asarray(np.random.default_rng(2).standard_normal((2, B, independent.D)))
    net = Net(_versions())
    options = {"warmup_steps": 1, "ramp_steps": 3, "prob_diagonal": 0.25}
    plain, learned = (objectives.make("lsd", weight=weight, **options) for weight in ("none", "learned"))
    drawn = plain.draw(KEY, x0, x1, 2)
    w = np.sin(3 * drawn.diagonal.t) + drawn.diagonal.t
    w_off = np.sin(3 * drawn.off_diagonal.t) + drawn.off_diagonal.u
    before, after = plain.loss(net, drawn, None), learned.loss(net, drawn, None)

    on = np.arange(B) % 4 == 0
    np.testing.assert_allclose(after.per_example[on], np.exp(-w) * before.per_example[on] / 2 + w)
    np.testing.assert_allclose(after.per_example[~on], np.exp(-w_off) * before.per_example[~on] / 2 + w_off / 2)
    assert after.degree == 0 and learned.learns_weight and not plain.learns_weight
    jax.tree.map(np.testing.assert_array_equal, (after.metrics, after.terms), (before.metrics, before.terms))
