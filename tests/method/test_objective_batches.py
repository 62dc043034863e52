"""How objectives treat a batch: drawing, strata, weights, the ramp, metrics, labels, dropout masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import interpolant, objectives
from sgflow_jax.models import BoundNet, unet
from sgflow_jax.models import make as make_model
from sgflow_jax.objectives.flow_map_objective import FlowMapObjective
from tests import independent

B, D = 8, 2
FLOW_MAPS = [name for name in objectives.names() if isinstance(objectives.make(name), FlowMapObjective)]
SPLIT = ("sgflow", {"estimator": "split"})
EVERY = [*((name, {}) for name in objectives.names()), SPLIT, ("consistency", {"continuous": True})]
KEY = jax.random.key(0)


def pairs(n=B):
    return jax.random.normal(jax.random.key(1), (2, n, D))


def smooth_net(t, u, x):
    return x * (1 + u[:, None] + t[:, None] ** 2)


def watched(name, **options):
    """The objective, and a list to which each call of its off-diagonal loss appends (examples, loss)."""
    seen = []

    class Watched(type(objectives.make(name))):
        def off_diagonal(self, net, examples, teacher):
            seen.append((examples, super().off_diagonal(net, examples, teacher)))
            return seen[-1][1]

    return Watched(**options), seen


@pytest.mark.parametrize(
    "name, path, target",
    [
        *((name, "linear", "pair") for name in FLOW_MAPS),
        *((name, "trigonometric", "batch") for name in ("sgflow", "fmm", "shortcut")),
    ],
)
def test_a_batch_is_split_into_flow_matching_and_the_off_diagonal_loss(name, path, target, x64):
    objective, seen = watched(name, prob_diagonal=0.25, interpolant=path, velocity_target=target)
    schedules = independent.PATHS[path]
    x0, x1 = map(np.asarray, pairs())
    on, calls = np.arange(B) % 4 == 0, []

    def net(t, u, x):
        calls.append((t, u))
        return smooth_net(t, u, x)

    def drawn(t, x0, x1_part):
        x_t, dx_t = independent.sample(schedules, t, x0, x1_part)
        return x_t, dx_t if target == "pair" else independent.mean_velocity(schedules, t, x0, x1_part, x1)

    out = objective(net, jnp.asarray(x0), jnp.asarray(x1), KEY, 7)

    t, u = map(np.asarray, calls[0])
    np.testing.assert_array_equal(t, u)
    x_t, dx_t = drawn(t, x0[on], x1[on])
    loss_on = independent.square(smooth_net(t, t, x_t) - dx_t)
    np.testing.assert_allclose(out.per_example[on], loss_on)

    ((examples, off),) = seen
    x_t, dx_t = drawn(np.asarray(examples.t), x0[~on], x1[~on])
    np.testing.assert_allclose(examples.x_t, x_t)
    np.testing.assert_allclose(examples.dx_t, dx_t)
    assert examples.step == 7
    np.testing.assert_allclose(out.per_example[~on], off.per_example)

    metrics = {"diagonal_loss": loss_on, "off_diagonal_loss": off.per_example}
    if off.residual is not None:
        metrics["residual_norm_sq"] = independent.square(np.asarray(off.residual))
    assert set(out.metrics) == set(metrics) | set(off.metrics)
    for metric, values in metrics.items():
        np.testing.assert_allclose(out.metrics[metric], np.mean(values))


@pytest.mark.parametrize("name", [name for name in objectives.names() if name not in FLOW_MAPS])
def test_other_objectives_use_every_example(name):
    seen, (x0, x1) = [], pairs()
    net = lambda t, u, x: seen.append((t, x)) or x  # noqa: E731
    out = objectives.make(name, interpolant="trigonometric")(net, x0, x1, KEY)
    t, x = seen[0]
    assert t.shape == out.per_example.shape == (B,)
    np.testing.assert_allclose(x, interpolant.make("trigonometric").sample(t, x0, x1)[0])
    (metric,) = out.metrics.values()
    np.testing.assert_allclose(metric, jnp.mean(out.per_example), rtol=1e-6)


def test_metrics_of_each_objective():
    common = {"diagonal_loss", "off_diagonal_loss", "residual_norm_sq"}
    extra = {}
    for name, options in [(name, {}) for name in ("mean_flow", "fmm", "consistency", "flow_matching", "esd")] + [SPLIT]:
        extra[name] = set(objectives.make(name, **options)(smooth_net, *pairs(), KEY).metrics) ^ common
    assert extra == {
        "mean_flow": {"residual_norm_sq"},
        "fmm": {"residual_norm_sq", "inverse_norm_sq"},
        "consistency": {"consistency_loss", *common},
        "flow_matching": {"off_diagonal_loss", "residual_norm_sq"},
        "esd": set(),
        "sgflow": {"residual_norm_sq", "eulerian_norm_sq", "noise_norm_sq"},
    }


def test_the_loss_of_split_is_the_difference_of_its_two_metrics():
    metrics = objectives.make("sgflow", estimator="split")(smooth_net, *pairs(), KEY).metrics
    difference = metrics["eulerian_norm_sq"] - metrics["noise_norm_sq"]
    np.testing.assert_allclose(difference, metrics["off_diagonal_loss"], rtol=1e-5)
    assert metrics["eulerian_norm_sq"] > 0 and metrics["noise_norm_sq"] > 0


def test_fmm_measures_its_inverse(x64):
    """With F = c the inverse is exact, f(u, t, f(t, u, x)) = x; the velocity is not."""
    out = objectives.make("fmm")(lambda t, u, x: jnp.full_like(x, 2.0), *pairs(), KEY)
    np.testing.assert_allclose(out.metrics["inverse_norm_sq"], 0, atol=1e-28)
    assert out.metrics["off_diagonal_loss"] > 1


def _of_parameters(name, weight="none", **options):
    """The per-example loss as a function of three parameters, and the parameters, residual and metrics."""
    objective, seen = watched(name, weight=weight, **options)

    def out(p):
        net = lambda t, u, x: p[0] * jnp.sin(x) + p[1] * t[:, None] * x + p[2] * u[:, None] ** 2  # noqa: E731
        return objective(net, *pairs(), KEY)

    p = jnp.array([0.5, -1.0, 2.0])
    metrics = out(p).metrics
    return lambda p: out(p).per_example, p, seen[0][1].residual, metrics


# The squared residual is the loss of most objectives, but not of these.
WEIGHTS = [("sgflow", "residual"), ("improved_mean_flow", "residual"), ("ctm", "residual"), ("mean_flow", "adaptive")]


@pytest.mark.parametrize("name, weight", WEIGHTS)
def test_a_weight_multiplies_value_and_gradient_but_not_the_metrics(name, weight, x64):
    plain, p, residual, metrics = _of_parameters(name)
    weighted, _, _, weighted_metrics = _of_parameters(name, weight, weight_power=0.75, weight_offset=0.1)

    if weight == "residual":
        w = np.ones(B)
        w[1::2] = (independent.square(np.asarray(residual)) + 0.1) ** -0.75
    else:
        w = (np.asarray(plain(p)) + 0.1) ** -0.75
    np.testing.assert_allclose(weighted(p), w * plain(p), rtol=1e-10)
    gradient = jax.grad(lambda p: jnp.sum(weighted(p)))(p)
    np.testing.assert_allclose(gradient, w @ jax.jacrev(plain)(p), rtol=1e-9)
    jax.tree.map(np.testing.assert_array_equal, metrics, weighted_metrics)


def test_warm_up_then_ramp():
    objective = objectives.make("sgflow", warmup_steps=10, ramp_steps=4)
    weights = [float(objective.ramp(step)) for step in (0, 9, 10, 11, 14, 100)]
    np.testing.assert_allclose(weights, [0, 0, 0.2, 0.4, 1, 1], rtol=1e-6)
    assert float(objectives.make("sgflow").ramp(0)) == 1


@pytest.mark.parametrize("name", ["sgflow", "fmm"])
def test_the_ramp_weights_only_the_off_diagonal_loss(name):
    full = objectives.make(name)(smooth_net, *pairs(), KEY, step=20)
    for step, ramp in [(5, 0.0), (11, 0.4), (20, 1.0)]:
        out = objectives.make(name, warmup_steps=10, ramp_steps=4)(smooth_net, *pairs(), KEY, step=step)
        np.testing.assert_allclose(out.per_example[::2], full.per_example[::2], rtol=1e-6)
        np.testing.assert_allclose(out.per_example[1::2], ramp * full.per_example[1::2], rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), out.metrics, full.metrics)


class Checked(BoundNet):
    """F = 0 with zero derivatives; NaN for an example with another example's label."""

    def __call__(self, t, u, x, label=None):
        return x * jnp.where(self.label.astype(x.dtype) == jnp.round(x[:, 0]), 0.0, jnp.nan)[:, None]

    def restrict(self, select):
        return Checked(self.model, self.params, select(self.label))


@pytest.mark.parametrize("name, options", EVERY)
def test_labels_follow_their_examples(name, options):
    """Network and teacher get each example with its own label, whatever the split."""
    label = jnp.arange(B)
    # x0 = x1, so x_t is the same number at every time, and with F = 0 so is f.
    x = jnp.broadcast_to(label[:, None].astype(jnp.float32), (B, D))
    right, objective = Checked(None, None, label), objectives.make(name, **options)
    wrong = right.replace(label=label[::-1])
    np.testing.assert_array_equal(objective(right, x, x, KEY).per_example, 0)
    assert np.all(np.isnan(objective(wrong, x, x, KEY).per_example))
    if objective.takes_teacher:
        np.testing.assert_array_equal(objective(right, x, x, KEY, teacher=right).per_example, 0)
        assert np.any(np.isnan(objective(right, x, x, KEY, teacher=wrong).per_example))


@pytest.mark.parametrize("name, options", [*((name, {}) for name in FLOW_MAPS), SPLIT])
def test_every_call_of_the_off_diagonal_loss_has_the_same_batch_size(name, options):
    """A velocity and the derivatives along it must use the same labels and dropout masks."""
    sizes = []
    net = lambda t, u, x: sizes.append(len(t)) or x  # noqa: E731
    objectives.make(name, prob_diagonal=0.75, **options)(net, *pairs(16), KEY)
    assert sizes[0] == 12 and set(sizes[1:]) == {4}


def test_a_dropout_key_fixes_the_mask_of_one_example_in_any_batch():
    options = dict(
        channels=4,
        channel_mult=(1,),
        num_blocks=1,
        attention_sizes=(),
        time_scale=10.0,
        num_classes=0,
        label_dropout=0.0,
    )
    model = make_model("unet", **options, dropout=0.5, dtype="float32", precision="highest", remat="none")
    t, x = jnp.array([0.2, 0.4]), jax.random.normal(KEY, (2, 4, 4, 1))
    params = jax.jit(model.init)(jax.random.key(1), t, t, x)["params"]
    net = BoundNet(model, jax.tree.map(lambda p: p + 0.1, params), dropout_keys=jax.random.split(KEY, 2))
    call = jax.jit(lambda net, t, x: net(t, t, x))
    out = call(net, t, x)
    np.testing.assert_array_equal(out, call(net, t, x))
    np.testing.assert_allclose(call(net.restrict(lambda a: a[1:]), t[1:], x[1:]), out[1:], rtol=1e-5, atol=1e-6)
    twice = call(net.replace(dropout_keys=net.dropout_keys[jnp.array([0, 0])]), t, x)
    np.testing.assert_array_equal(twice[0], out[0])
    assert np.any(twice[1] != out[1])
    assert np.any(out != call(net.replace(dropout_keys=None), t, x))


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    h = jnp.ones((8, 16, 16, 4))
    dropped = np.asarray(unet.dropout(h, jax.random.split(KEY, 8), 0.25))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    # A share of n = 1,024 draws has the standard deviation sqrt(.25 * .75 / n) = .0135.
    np.testing.assert_allclose(np.mean(dropped == 0, axis=(1, 2, 3)), 0.25, atol=4 * 0.0135)
