"""One training step: metrics, keys, teacher, size of the loss, devices, rollbacks, faults."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgflow_jax import build, data, models, objectives
from sgflow_jax.devices import sharding
from sgflow_jax.guard import FAULTS
from sgflow_jax.interfaces import LossOut
from sgflow_jax.objectives.flow_matching import FlowMatching
from sgflow_jax.train_step import Examples, several
from tests import independent, tiny


@functools.cache
def _default():
    return _setup(tiny.mixture())


def _setup(config=None):
    """(step, three batches, state, monitor). Tests of the default configuration share one, so that it compiles once."""
    if config is None:
        return _default()
    step = build.train_step(config)
    source = build.source(config)
    batches = [source.batch(0, i, config.data.batch_size, slice(None)) for i in range(3)]
    state = jax.jit(step.init, static_argnums=1)(jax.random.key(0), data.shape(config.data))
    return step, batches, state, step.init_monitor(batches[0], state)


def assert_close(a, b, rtol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


def _run(step, batches, state, monitor):
    for batch in batches:
        state, monitor = jax.jit(step)(state, monitor, batch, jax.random.key(1))
    return state, monitor


def test_averages_are_means_per_coordinate_over_steps():
    step, batches, state, monitor = _setup()
    singles = []
    for batch in batches:
        state, one = jax.jit(step)(state, monitor, batch, jax.random.key(1))
        singles.append(one.averages.compute())
    _, together = _run(*_setup())
    for name, value in together.averages.compute().items():
        np.testing.assert_allclose(value, np.mean([single[name] for single in singles]), rtol=1e-4)
    assert set(singles[0]) == {"loss", "diagonal_loss", "off_diagonal_loss", "residual_norm_sq", "grad_norm"}


def test_every_step_draws_its_own_noise_and_times():
    step, batches, state, monitor = _setup()
    losses = [
        float(jax.jit(step)(state.replace(step=jnp.int32(n)), monitor, batches[0], key)[1].averages.compute()["loss"])
        for n, key in [(0, jax.random.key(1)), (1, jax.random.key(1)), (0, jax.random.key(2))]
    ]
    assert len(set(losses)) == 3


def test_the_teacher_sees_the_labels_of_the_batch():
    step, batches, state, _ = _setup()
    x1, half, label = jnp.asarray(batches[0]["x"]), jnp.full(16, 0.5), jnp.arange(16) % 10
    model = models.make(**{**tiny.mixture().model, "num_classes": 10})
    params = model.init(jax.random.key(2), half, half, x1, label)["params"]
    teacher = models.BoundNet(model, jax.tree.map(lambda p: p + 0.1, params))

    class Output(FlowMatching):
        def unguided_loss(self, net, drawn, teacher):
            return LossOut(teacher(half, half, x1)[:, 0], {})

    step = dataclasses.replace(step, objective=Output())
    (loss, _), _ = step.gradient(state.params, state, {"x": x1, "label": label}, jax.random.key(1), teacher)
    np.testing.assert_allclose(loss, jnp.mean(teacher(half, half, x1, label)), rtol=1e-6)
    assert abs(loss - jnp.mean(teacher(half, half, x1, 0 * label))) > 1e-3


def test_loss_is_per_coordinate():
    """F = 0 at the start, so flow matching's loss is the mean of dx_t^2 over examples and coordinates."""
    config = tiny.digits("flow_matching")
    config.data.batch_size = 64
    step, batches, state, _ = _setup(config)
    loss, seen = jax.jit(lambda *args: step.gradient(*args)[0])(state.params, state, batches[0], jax.random.key(1))
    x1 = data.to_float(jnp.asarray(batches[0]["x"]))
    np.testing.assert_allclose([loss, seen.metrics["diagonal_loss"]], 1 + jnp.mean(x1**2), rtol=0.05)


def test_the_null_class_takes_its_share_and_nothing_else_of_a_batch():
    """Noise, times and dropout masks are those of a run without labels."""
    plain, batches, *_ = _setup()
    step, (batch, *_), *_ = _labelled()
    examples = jax.jit(lambda step, key: step._examples(batch, key, 0), static_argnums=0)
    dropped = 0
    for key in jax.random.split(jax.random.key(3), 20):
        with_labels, without = examples(step, key), examples(plain, key)
        jax.tree.map(np.testing.assert_array_equal, with_labels.drawn, without.drawn)
        keys = [jax.random.key_data(each.dropout_keys) for each in (with_labels, without)]
        np.testing.assert_array_equal(*keys)
        kept = np.asarray(with_labels.label != 3)
        np.testing.assert_array_equal(with_labels.label[kept], batch["label"][kept])
        np.testing.assert_array_equal(without.label, batch["label"])
        dropped += np.sum(~kept)
    assert abs(dropped / (20 * 16) - 0.5) < 4 * np.sqrt(0.25 / 320)

    noise, times, masks = jax.random.split(key, 3)  # as before there were null classes
    expected = plain.objective.draw(times, jax.random.normal(noise, batch["x"].shape), jnp.asarray(batch["x"]), 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), with_labels.drawn, expected)
    np.testing.assert_array_equal(keys[0], jax.random.key_data(jax.random.split(masks, 16)))


def test_the_mean_over_the_batch_is_over_the_examples_of_the_same_class():
    """Over all for those of the null class."""
    step, (batch, *_), *_ = _labelled(velocity_target="batch")
    label, drawn = step._examples(batch, jax.random.key(3), 0)[1::-1]
    x1, own = np.asarray(batch["x"], np.float64), batch["label"]
    x0 = np.asarray(jax.random.normal(jax.random.split(jax.random.key(3), 3)[0], x1.shape))
    data = [x1 if dropped else x1[own == c] for c, dropped in zip(own, np.asarray(label) == 3, strict=True)]
    for points, rows in ((drawn.diagonal, slice(0, None, 2)), (drawn.off_diagonal, slice(1, None, 2))):
        t = np.asarray(points.t, np.float64)
        expected = independent.mean_velocity(independent.PATHS["linear"], t, x0[rows], x1[rows], data[rows])
        np.testing.assert_allclose(points.dx_t, expected, rtol=2e-4, atol=2e-4)


class Small(nn.Module):
    """`independent.network` as a Flax module, or the same small network for each coordinate of x."""

    each_coordinate: bool = False
    num_classes = 0
    dtype, precision = "float32", "highest"

    @nn.compact
    def __call__(self, t, u, x, label=None, dropout_keys=None):
        params = {name: self.param(name, nn.initializers.normal(), shape) for name, shape in independent.SHAPES.items()}
        if not self.each_coordinate:
            return independent.network(jnp, params, t, u, x)
        pairs = jnp.stack([x, -x], axis=-1).reshape(-1, 2)
        times = (jnp.repeat(time, x.shape[1]) for time in (t, u))
        return independent.network(jnp, params, *times, pairs)[:, 0].reshape(x.shape)


def _small_gradient(objective, x0, x1, net, params, step=0):
    """The gradient of the training loss, and what was drawn."""
    train = dataclasses.replace(_setup()[0], model=net, objective=objective)
    drawn = objective.draw(jax.random.key(0), x0, x1, step)
    examples = Examples(drawn, jnp.zeros(len(x1), jnp.int32), None)
    return jax.grad(train.loss, has_aux=True)(params, examples, x1[0].size, None)[0], drawn


WEIGHTED = [
    ("mean_flow", {"weight": "adaptive", "weight_power": 0.5}),
    ("sgflow", {"weight": "residual"}),
    ("esd", {"weight": "residual", "weight_power": 0.5}),
    ("sgflow", {}),
]


@pytest.mark.parametrize("name, options", WEIGHTED)
def test_the_gradient_does_not_depend_on_the_size_of_the_image(name, options, x64):
    """An image and three copies of it side by side have the same gradient, up to the weight's offset."""
    objective = objectives.make(name, weight_offset=1e-12, **options)
    params = jax.tree.map(jnp.asarray, independent.parameters(np.random.default_rng(0)))
    x0, x1 = jax.random.normal(jax.random.key(1), (2, 8, 4))
    once, thrice = (
        _small_gradient(objective, *(jnp.tile(x, count) for x in (x0, x1)), Small(each_coordinate=True), params)[0]
        for count in (1, 3)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8), once, thrice)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_bounded_weight_gives_the_gradient_of_the_paper(power, x64):
    """At p = 1, MeanFlow's mean over the batch of sg[1 / (L + c)^p] L, L summed over coordinates. With another p it
    differs by a power of the number of coordinates, which does not change Adam's steps."""
    objective = objectives.make("mean_flow", weight="adaptive", weight_power=power, weight_offset=1e-3)
    params = independent.parameters(np.random.default_rng(0))
    x0, x1 = np.random.default_rng(1).standard_normal((2, 8, independent.D))
    found, drawn = _small_gradient(objective, jnp.asarray(x0), jnp.asarray(x1), Small(), params)

    on, off = slice(0, None, 2), slice(1, None, 2)  # as `Strata` has them
    path = independent.PATHS["linear"]
    diagonal = independent.At.of(drawn.diagonal.t, drawn.diagonal.t, x0[on], x1[on], path)
    rest = independent.At.of(drawn.off_diagonal.t, drawn.off_diagonal.u, x0[off], x1[off], path)

    def losses(params_):
        return np.concatenate(
            [independent.flow_matching(params_, params, diagonal), independent.mean_flow(params_, params, rest)]
        )

    weights = (losses(params) + 1e-3) ** -power
    for name, direction in independent.parameters(np.random.default_rng(2)).items():
        expected = independent.slope(
            lambda h, n=name, d=direction: np.mean(weights * losses({**params, n: params[n] + h * d}))
        )
        np.testing.assert_allclose(np.sum(found[name] * direction), expected * independent.D ** (power - 1), rtol=1e-7)


def test_several_steps_in_one_call_are_the_same_steps():
    step, batches, state, monitor = _setup()
    stacked = jax.tree.map(lambda *each: np.stack(each), *batches)
    together = jax.jit(several(step, 3))(state, monitor, stacked, jax.random.key(1))
    assert_close(together[0], _run(step, batches, state, monitor)[0])


def _labelled(**objective):
    """A run with three classes, a null class for half of the examples, and batches with labels."""
    config = tiny.mixture()
    config.model.num_classes, config.model.label_dropout = 3, 0.5
    config.objective.update(objective)
    step, batches, *rest = _setup(config)
    return step, [{**batch, "label": np.arange(16, dtype=np.int32) // 2 % 3} for batch in batches], *rest


@pytest.mark.parametrize("target", ["pair", "batch", "guided"])
def test_four_devices_take_the_same_step_as_one(target):
    """Also where an example depends on the others."""
    if target == "guided":
        step, batches, state, monitor = _labelled(velocity_target="batch", guidance=2.0)
    else:
        config = tiny.mixture()
        config.objective.velocity_target = target
        step, batches, state, monitor = _setup(config if target == "batch" else None)
    mesh = sharding.mesh()
    assert mesh.size == 4
    batches_split = [sharding.to_devices(batch, sharding.split(mesh)) for batch in batches]
    replicated = jax.device_put((state, monitor), sharding.replicated(mesh))
    assert_close(_run(step, batches_split, *replicated)[0], _run(step, batches, state, monitor)[0])


def test_each_rollback_shrinks_the_steps():
    step, batches, state, monitor = _setup()
    step = dataclasses.replace(step, rollback_factor=0.5)
    start = jax.tree.map(np.array, state.params)
    moved = []
    for rollbacks in (0, 2):
        before = state.replace(rollbacks=jnp.int32(rollbacks))
        after = jax.jit(step)(before, monitor, batches[0], jax.random.key(1))[0]
        moved.append(jax.tree.map(np.subtract, after.params, start))
    jax.tree.map(lambda whole, part: np.testing.assert_allclose(part, whole / 4, rtol=1e-3, atol=1e-7), *moved)
    assert max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(moved[0])) > 1e-6


def test_a_fault_is_recorded_with_its_step():
    step, batches, state, monitor = _setup()
    poisoned = [batches[0], {**batches[1], "x": batches[1]["x"] * np.nan}, batches[2]]
    _, monitor = _run(step, poisoned, state, monitor)
    assert (int(monitor.guard.fault_step), FAULTS[int(monitor.guard.fault)]) == (2, "the loss is not finite")


def _first_fault(step, batches, state, monitor):
    _, monitor = _run(step, batches, state, monitor)
    return int(monitor.guard.fault_step), FAULTS[int(monitor.guard.fault)]


def test_a_loss_out_of_bounds_is_a_fault():
    config = tiny.mixture()
    config.train.max_abs_loss = 1e-9
    assert _first_fault(*_setup(config)) == (1, "the loss is beyond train.max_abs_loss")


@pytest.mark.parametrize(
    "options", [{"weight": "adaptive"}, {"warmup_steps": 10}], ids=lambda options: next(iter(options))
)
def test_no_weight_and_no_warm_up_hides_a_large_loss_from_the_guard(options):
    """The guard watches the off-diagonal part, even where the loss and the diagonal part are small."""
    config = tiny.mixture("mean_flow")
    config.objective.update(options)
    config.model.time_scale = 1000.0
    step, batches, state, monitor = _setup(config)
    params = jax.tree.map(lambda p: p + 0.3, state.params)
    monitor = _run(step, batches[:1], state.replace(params=params), monitor)[1]
    found, watched = monitor.averages.compute(), monitor.guard.losses[0]
    np.testing.assert_allclose(watched, found["off_diagonal_loss"], rtol=1e-5)
    assert watched > 4 * max(abs(found["loss"]), found["diagonal_loss"])


def test_a_gradient_that_is_not_finite_is_a_fault():
    class InfiniteSlope(FlowMatching):
        def unguided_loss(self, net, drawn, teacher):
            """sqrt(|p|^2) at p = 0: the value is 0, the slope is NaN."""
            length = jnp.sqrt(sum(jnp.sum((p * 0) ** 2) for p in jax.tree.leaves(net.params)))
            return LossOut(jnp.broadcast_to(length, drawn.t.shape), {})

    step, batches, state, _ = _setup()
    step = dataclasses.replace(step, objective=InfiniteSlope())
    assert _first_fault(step, batches, state, step.init_monitor(batches[0], state)) == (1, "the gradient is not finite")


def test_parameters_that_are_not_finite_are_a_fault():
    step, batches, state, monitor = _setup()
    step = dataclasses.replace(step, optimiser=optax.scale(jnp.inf))
    state = state.replace(opt_state=step.optimiser.init(state.params))
    assert _first_fault(step, batches, state, monitor) == (1, "the parameters are not finite")
