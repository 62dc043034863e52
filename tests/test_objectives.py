"""Objectives against an independent evaluation: NumPy in float64, every derivative a finite difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import objectives
from sgflow_jax.interfaces import InputError
from sgflow_jax.interpolant import make as make_interpolant
from sgflow_jax.models import BoundNet
from sgflow_jax.models import make as make_model

B, D, WIDTH = 8, 2, 5
SHAPES = {"W": (D + 2, WIDTH), "V": (WIDTH, D)}


def _parameters(rng):
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def _network(xp, params, t, u, x):
    """A small network that can be evaluated by NumPy and by JAX."""
    features = xp.concatenate([x, t[:, None], u[:, None]], axis=1)
    return xp.tanh(features @ params["W"]) @ params["V"]


def _jax_net(params):
    return lambda t, u, x: _network(jnp, params, t, u, x)


def _batch(rng):
    t = rng.uniform(0.05, 0.6, B)
    return t, t + rng.uniform(0.05, 0.35, B), rng.standard_normal((B, D)), rng.standard_normal((B, D))


def _directional(function, h=1e-3):
    """d/dh function(h) at 0: central differences of sixth order."""
    weights = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    return sum(w * (function(k * h) - function(-k * h)) for k, w in weights.items()) / h


# The losses as the papers state them. `frozen` are the parameters inside a stop-gradient.


def _f(params, t, u, x):
    return x + (u - t)[:, None] * _network(np, params, t, u, x)


def _eulerian(params, t, u, x, direction):
    return _directional(lambda h: _f(params, t + h, u, x + h * direction))


def _spatial(params, t, u, x, direction):
    return _directional(lambda h: _f(params, t, u, x + h * direction))


def _sgflow(params, frozen, t, u, x, dx):
    e = dx - _network(np, frozen, t, t, x)
    return np.sum(_eulerian(params, t, u, x, dx) ** 2, axis=1) - np.sum(_spatial(params, t, u, x, e) ** 2, axis=1)


def _sgflow_split(params, frozen, t, u, x, dx):
    e = dx - _network(np, frozen, t, t, x)
    plus = np.sum(_eulerian(params, t, u, x, dx) ** 2, axis=1)
    minus = np.sum(_spatial(params, t, u, x, e) ** 2, axis=1)
    return 2 * np.where(np.arange(B) % 2 == 0, plus, -minus)


def _mean_flow_residual(params, frozen, t, u, x, dx):
    DF = _directional(lambda h: _network(np, frozen, t + h, u, x + h * dx))
    return np.sum((_network(np, params, t, u, x) - (dx + (u - t)[:, None] * DF)) ** 2, axis=1)


def _mean_flow_adaptive(params, frozen, *batch):
    return _mean_flow_residual(params, frozen, *batch) / (_mean_flow_residual(frozen, frozen, *batch) + 0.1) ** 0.75


CASES = {
    "sgflow paired": (objectives.make("sgflow"), _sgflow),
    "sgflow split": (objectives.make("sgflow", estimator="split"), _sgflow_split),
    "mean_flow": (objectives.make("mean_flow"), _mean_flow_residual),
    "mean_flow adaptive": (
        objectives.make("mean_flow", adaptive_power=0.75, adaptive_offset=0.1),
        _mean_flow_adaptive,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_equal_an_independent_evaluation(name, x64):
    objective, independent = CASES[name]
    rng = np.random.default_rng(0)
    params, batch = _parameters(rng), _batch(rng)

    def loss(params):
        return jnp.sum(per_example(params))

    def per_example(params):
        return objective.weigh(objective.off_diagonal(_jax_net(params), *map(jnp.asarray, batch), None)[0])

    np.testing.assert_allclose(per_example(params), independent(params, params, *batch), rtol=1e-8)

    gradient = jax.grad(loss)(jax.tree.map(jnp.asarray, params))
    for key, shape in SHAPES.items():
        for index in np.ndindex(shape):

            def along(h, key=key, index=index):
                moved = {k: v.copy() for k, v in params.items()}
                moved[key][index] += h
                return np.sum(independent(moved, params, *batch))

            np.testing.assert_allclose(gradient[key][index], _directional(along), rtol=1e-6, atol=1e-6)


def test_flow_matching_by_hand(x64):
    """Recovers (t, x_t) from a network that reports them, and recomputes |F - dx_t|^2."""
    seen = {}

    def net(t, u, x):
        seen.update(t=t, u=u, x=x)
        return 2 * x

    x0, x1 = jax.random.normal(jax.random.key(1), (2, B, D))
    out = objectives.make("flow_matching")(net, x0, x1, jax.random.key(0))
    np.testing.assert_array_equal(seen["t"], seen["u"])
    t = np.asarray(seen["t"])[:, None]
    x_t = (1 - t) * x0 + t * x1
    np.testing.assert_allclose(seen["x"], x_t)
    np.testing.assert_allclose(out.per_example, np.sum((2 * x_t - (x1 - x0)) ** 2, axis=1))
    np.testing.assert_allclose(out.metrics["diagonal_loss"], np.mean(out.per_example))


@pytest.mark.parametrize("name", ["sgflow", "mean_flow"])
def test_diagonal_examples_are_flow_matching_and_only_they_have_equal_times(name, x64):
    calls = []

    def net(t, u, x):
        calls.append((t, u))
        return x * (1 + u[:, None])

    x0, x1 = jax.random.normal(jax.random.key(1), (2, B, D))
    out = objectives.make(name, prob_diagonal=0.25)(net, x0, x1, jax.random.key(0))
    t, u = calls[0]
    np.testing.assert_array_equal(t, u)
    assert len(t) == B // 4
    # Everything after the first call is about the other examples: derivatives at t < u, and vhat on their diagonal.
    off = [(t, u) for t, u in calls[1:] if not np.array_equal(_value(t), _value(u))]
    assert off and all(len(t) == 3 * B // 4 and np.all(_value(t) < _value(u)) for t, u in off)
    assert all(len(t) == 3 * B // 4 for t, _ in calls[1:])
    on = slice(None, None, 4)
    x_t, dx_t = make_interpolant("linear").sample(t, x0[on], x1[on])
    np.testing.assert_allclose(out.per_example[on], jnp.sum((x_t * (1 + t[:, None]) - dx_t) ** 2, axis=1))
    assert out.per_example.shape == (B,)


def _value(t):
    """The number in a traced time: the primal of a tangent."""
    while isinstance(t, jax.core.Tracer):
        t = t.primal
    return np.asarray(t)


@pytest.mark.parametrize("name", objectives.names())
def test_metrics_are_returned_apart(name):
    x0, x1 = jax.random.normal(jax.random.key(1), (2, B, D))
    out = objectives.make(name)(lambda t, u, x: x, x0, x1, jax.random.key(0))
    expected = (
        {"diagonal_loss"} if name == "flow_matching" else {"diagonal_loss", "off_diagonal_loss", "residual_norm_sq"}
    )
    assert set(out.metrics) == expected
    if name != "flow_matching":
        parts = (out.metrics["diagonal_loss"] + out.metrics["off_diagonal_loss"]) / 2
        np.testing.assert_allclose(jnp.mean(out.per_example), parts, rtol=1e-5)


def test_warm_up_then_ramp():
    objective = objectives.make("sgflow", warmup_steps=10, ramp_steps=4)
    weights = [float(objective.ramp(step)) for step in (0, 9, 10, 11, 14, 100)]
    np.testing.assert_allclose(weights, [0, 0, 0.2, 0.4, 1, 1], rtol=1e-6)
    assert float(objectives.make("sgflow").ramp(0)) == 1

    x0, x1 = jax.random.normal(jax.random.key(1), (2, B, D))
    out = objective(lambda t, u, x: x, x0, x1, jax.random.key(0), step=5)
    np.testing.assert_array_equal(out.per_example[1::2], 0)
    assert np.all(out.per_example[::2] > 0)


def test_labels_follow_their_examples():
    """The label of every example a network sees is the one it came with, whatever the split."""

    def check(net_label, x):
        np.testing.assert_array_equal(net_label, jnp.round(x[:, 0]))

    class Spy(BoundNet):
        def __call__(self, t, u, x, label=None):
            jax.debug.callback(check, self.label, jax.lax.stop_gradient(x))
            return x * 0

        def restrict(self, select):
            return Spy(self.model, self.params, select(self.label))

    label = jnp.arange(B)
    x = jnp.broadcast_to(label[:, None].astype(jnp.float32), (B, D))
    for name, options in [("sgflow", {}), ("sgflow", {"estimator": "split"}), ("mean_flow", {}), ("flow_matching", {})]:
        # x0 = x1, so x_t is the same number at every time.
        objectives.make(name, **options)(Spy(None, None, label), x, x, jax.random.key(0))
    jax.effects_barrier()


def test_metrics_are_unweighted():
    x0, x1 = jax.random.normal(jax.random.key(1), (2, B, D))
    plain, weighted = (
        objectives.make("mean_flow", adaptive_power=p)(lambda t, u, x: x, x0, x1, jax.random.key(0)) for p in (0.0, 1.0)
    )
    assert np.any(plain.per_example != weighted.per_example)
    jax.tree.map(np.testing.assert_array_equal, plain.metrics, weighted.metrics)


@pytest.mark.parametrize("estimator", ["paired", "split"])
def test_every_call_of_one_term_has_one_batch_size(estimator):
    """Dropout masks depend on it: vhat and the derivatives must be of one function."""
    sizes = []
    net = lambda t, u, x: sizes.append(len(t)) or x  # noqa: E731
    x0, x1 = jax.random.normal(jax.random.key(1), (2, 16, D))
    objectives.make("sgflow", estimator=estimator, prob_diagonal=0.75)(net, x0, x1, jax.random.key(0))
    assert sizes[0] == 12 and set(sizes[1:]) == {4}


def test_one_dropout_key_is_one_mask():
    model = make_model("unet", **_UNET, dropout=0.5)
    t, x = jnp.array([0.2, 0.4]), jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    params = model.init(jax.random.key(1), t, t, x)["params"]
    params = jax.tree.map(lambda p: p + 0.1, params)
    net = BoundNet(model, params, dropout_key=jax.random.key(2))
    np.testing.assert_array_equal(net(t, t, x), net(t, t, x))
    assert np.any(net(t, t, x) != net.replace(dropout_key=jax.random.key(3))(t, t, x))
    assert np.any(net(t, t, x) != net.replace(dropout_key=None)(t, t, x))


_UNET = dict(
    channels=4, channel_mult=(1,), num_blocks=1, attention_sizes=(), time_scale=10.0, num_classes=0, dtype="float32"
)


def test_a_teacher_gives_sgflow_its_velocity(x64):
    """With the exact velocity as teacher, vhat is exact whatever the network's own diagonal."""
    rng = np.random.default_rng(0)
    params, other, batch = _parameters(rng), _parameters(rng), _batch(rng)
    got, _ = objectives.make("sgflow").off_diagonal(_jax_net(params), *map(jnp.asarray, batch), _jax_net(other))
    np.testing.assert_allclose(got, _sgflow(params, other, *batch), rtol=1e-8)


@pytest.mark.parametrize(
    "name, options, match",
    [
        ("nope", {}, "'nope'.*sgflow, flow_matching, mean_flow"),
        ("sgflow", {"estimater": "split"}, "estimater.*estimator"),
        ("sgflow", {"estimator": "both"}, "'both'.*paired, split"),
        ("sgflow", {"prob_diagonal": 1.0}, "prob_diagonal"),
        ("sgflow", {"time_law": "beta"}, "'beta'.*uniform, logit_normal"),
        ("sgflow", {"interpolant": "cubic"}, "'cubic'.*linear"),
        ("sgflow", {"warmup_steps": -1}, "warmup_steps"),
        ("sgflow", {"logit_std": float("nan")}, "logit_std is nan"),
        ("sgflow", {"prob_diagonal": float("nan")}, "prob_diagonal is nan"),
        ("flow_matching", {"prob_diagonal": 0.5}, "prob_diagonal"),
        ("mean_flow", {"adaptive_offset": 0.0}, "adaptive_offset"),
    ],
)
def test_bad_options_name_the_fault_and_what_is_allowed(name, options, match):
    with pytest.raises(InputError, match=match):
        objectives.make(name, **options)


def test_objectives_are_hashable_and_equal_by_value():
    assert objectives.make("sgflow") == objectives.make("sgflow")
    assert len({objectives.make("sgflow"), objectives.make("sgflow", estimator="split")}) == 2


def test_no_use_for_a_teacher_is_said():
    x = jnp.zeros((B, D))
    for name in ("flow_matching", "mean_flow"):
        with pytest.raises(InputError, match="takes no teacher"):
            objectives.make(name)(lambda t, u, x: x, x, x, jax.random.key(0), teacher=lambda t, u, x: x)
