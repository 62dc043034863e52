import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import generate, models, objectives, sampling
from sgflow_jax.devices import sharding
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import Stream, expand_time, stream_key
from tests.method.test_models import MLP, bound


def _sampler(method="flow_map", interpolant="linear", grid="uniform"):
    objective = "consistency" if method == "consistency" else "sgflow"
    return sampling.Sampler(objectives.make(objective, interpolant=interpolant), method, grid)


def _plan(shape, batch_size, seed=0, calls=2, **sampler):
    return generate.Plan(shape, _sampler(**sampler), calls, seed, batch_size)


@pytest.mark.parametrize("method", ["flow_map", "consistency"])
def test_example_i_depends_on_seed_and_i_only(method, monkeypatch):
    net = bound("mlp", MLP, (2,))

    def examples(batch_size, count, seed=0):
        return generate.examples(net, _plan((2,), batch_size, seed, 3, method=method), count)

    ten = examples(4, 10)
    assert ten.shape == (10, 2) and len(np.unique(ten[:, 0])) == 10
    np.testing.assert_allclose(examples(100, 10), ten, rtol=1e-5)
    np.testing.assert_allclose(examples(4, 3), ten[:3], rtol=1e-5)
    assert np.all(examples(4, 10, seed=1) != ten)

    one_device = jax.make_mesh((1, 1), sharding.AXES, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "mesh", lambda: one_device)
    np.testing.assert_allclose(examples(4, 10), ten, rtol=1e-5)


def test_consistency_sampling_returns_to_fresh_noise_on_the_interpolant_of_the_objective():
    """With F = 0 two steps give sigma_t x0 + alpha_t noise at t = 1/2, of variance sigma^2 + alpha^2."""
    net = bound("mlp", MLP, (2,), offset=0.0)
    for interpolant, variance in [("linear", 1 / 2), ("trigonometric", 1)]:
        plan = _plan((2,), 4_000, method="consistency", interpolant=interpolant)
        made = generate.examples(net, plan, 4_000)
        np.testing.assert_allclose(np.cov(made.T), variance * np.eye(2), atol=0.1)


def test_images_are_uint8():
    images = generate.examples(_fake(Still), _plan((8, 8, 3), 8), 8)
    assert images.shape == (8, 8, 8, 3) and images.dtype == np.uint8
    # P(|N(0, 1)| > 1) of the pixels are clipped.
    assert abs(np.mean((images == 0) | (images == 255)) - 0.3173) < 0.05


def test_every_example_has_the_label_of_the_plan():
    """In several batches, the last of them padded."""
    labels = np.array([3, 0, 9, 9, 1, 4, 2, 8, 5, 7], np.int32)
    plan = _plan((2,), 4, calls=1)
    label = generate.examples(_fake(Label, 10), plan._replace(labels=labels), 10)
    label -= generate.examples(_fake(Still), plan, 10)
    np.testing.assert_allclose(label, np.broadcast_to(labels[:, None], (10, 2)), atol=1e-5)


def test_labels_do_not_move_the_noise():
    plan = _plan((2,), 4)
    labelled = plan._replace(labels=np.arange(10, dtype=np.int32))
    still = _fake(Still, 10)
    np.testing.assert_array_equal(generate.examples(still, labelled, 10), generate.examples(_fake(Still), plan, 10))


def test_labels_are_drawn_with_the_frequencies_of_the_data():
    counts = np.array([100, 0, 700, 200])
    drawn = generate.draw_labels(3, 4_000, counts)
    assert drawn.dtype == np.int32 and drawn.shape == (4_000,)
    shares = np.bincount(drawn, minlength=4) / 4_000
    np.testing.assert_allclose(shares, counts / 1_000, atol=4 * np.sqrt(0.25 / 4_000))
    assert shares[1] == 0
    np.testing.assert_array_equal(generate.draw_labels(3, 50, counts), drawn[:50])
    np.testing.assert_array_equal(generate.draw_labels(3, 50, 7 * counts), drawn[:50])
    assert np.any(generate.draw_labels(4, 50, counts) != drawn[:50])
    assert np.all(generate.draw_labels(3, 50, np.array([0, 0, 1])) == 2)


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_guided_examples_follow_the_guided_field_in_its_interval(method):
    """F = label: the guided field is 10 + W (label - 10) at times up to 1 / 2, the label after."""
    labels = np.arange(8, dtype=np.int32)
    net = _fake(Label, 10, label_dropout=0.1)
    plan = _plan((2,), 8, calls=8, method=method)._replace(labels=labels)
    sampler = dataclasses.replace(plan.sampler, guidance=Guidance(3.0, 0.0, 0.5))
    way = generate.examples(net, plan._replace(sampler=sampler), 8) - generate.examples(_fake(Still), plan, 8)
    guided, own = 10 + 3 * (labels - 10.0), labels
    # euler evaluates at 0, 1/8, ..., 7/8; heun at both ends of four intervals, so that 1/2 counts twice.
    share = 5 / 8
    expected = share * guided + (1 - share) * own
    if method == "heun":
        times = np.repeat([0, 1, 2, 3], 2) / 4 + np.tile([0, 1], 4) / 4
        expected = np.mean([np.where(t <= 0.5, guided, own) for t in times], axis=0)
    np.testing.assert_allclose(way, np.broadcast_to(expected[:, None], (8, 2)), atol=1e-4)


def test_weight_one_and_the_whole_interval_of_weight_zero():
    """W = 1 is the network itself, W = 0 the null class."""
    labels = np.arange(8, dtype=np.int32)
    net = bound("mlp", {**MLP, "num_classes": 8, "label_dropout": 0.1}, (2,), jnp.zeros(1, jnp.int32))
    plan = _plan((2,), 8, calls=3, method="euler")._replace(labels=labels)

    def made(weight, labels=labels):
        sampler = dataclasses.replace(plan.sampler, guidance=Guidance(weight))
        return generate.examples(net, plan._replace(sampler=sampler, labels=labels), 8)

    np.testing.assert_array_equal(made(1.0), generate.examples(net, plan, 8))
    np.testing.assert_allclose(made(0.0), made(1.0, np.full_like(labels, 8)), rtol=1e-5, atol=1e-6)
    assert np.all(np.any(made(2.0) != made(1.0), axis=1))


def test_nan_and_infinity_are_reported():
    net = _fake(Beyond).replace(params=-jnp.inf)
    with pytest.raises(generate.NotFinite, match=r"produced NaN or infinity \(flow_map, 2 network calls\): the train"):
        generate.examples(net, _plan((8, 8, 3), 4), 4)
    with pytest.raises(generate.NotFinite, match="produced NaN"):
        generate.interpolate(net, _plan((8, 8, 3), 4), 2, 2)


@flax.struct.dataclass
class Still(models.BoundNet):
    """F = 0: returns the noise."""

    def __call__(self, t, u, x):
        return jnp.zeros_like(x)


@flax.struct.dataclass
class Clock(models.BoundNet):
    """F = t."""

    def __call__(self, t, u, x):
        return jnp.broadcast_to(expand_time(t, x), x.shape)


@flax.struct.dataclass
class Label(models.BoundNet):
    """F = label."""

    def __call__(self, t, u, x):
        return jnp.broadcast_to(expand_time(self.label.astype(x.dtype), x), x.shape)


def _fake(kind, num_classes=0, label_dropout=0.0):
    return kind(models.make("mlp", **{**MLP, "num_classes": num_classes, "label_dropout": label_dropout}), None)


@pytest.mark.parametrize("grid, moved", [("uniform", 1 / 2 * 1 / 2), ("quadratic", 1 / 4 * 3 / 4)])
def test_the_grid_of_the_plan_is_used(grid, moved):
    """Two steps, to time t and on to 1, move by t (1 - t)."""
    plan = _plan((2,), 8, grid=grid)
    way = generate.examples(_fake(Clock), plan, 8) - generate.examples(_fake(Still), plan, 8)
    np.testing.assert_allclose(way, moved, atol=1e-6)


@pytest.mark.parametrize("method", sampling.METHODS)
def test_examples_are_what_sampling_makes_of_their_noise(method):
    """`sampling.sample` in one program, against a program a step."""
    net = bound("mlp", MLP, (2,))
    plan = _plan((2,), 4, seed=3, calls=6, method=method, interpolant="trigonometric", grid="quadratic")
    noise = generate.examples(_fake(Still), plan._replace(sampler=_sampler()), 10)
    keys = [jax.random.fold_in(stream_key(3, Stream.SAMPLING), i) for i in range(10)]
    keys = jnp.stack([jax.random.fold_in(key, generate._RENOISE) for key in keys])
    renoise = plan.sampler.renoise(keys)
    expected = sampling.sample(net, noise, sampling.time_grid(6, method, "quadratic"), method, renoise)
    np.testing.assert_allclose(generate.examples(net, plan, 10), expected, rtol=1e-5, atol=1e-6)


def test_every_number_of_steps_and_every_grid_runs_the_same_programs():
    traced = []

    @flax.struct.dataclass
    class Traced(models.BoundNet):
        def __call__(self, t, u, x):
            traced.append(x.shape)
            return jnp.zeros_like(x)

    for method, calls in [("euler", (1, 2, 5)), ("heun", (2, 8)), ("consistency", (1, 3))]:
        traced.clear()
        for count in calls:
            for grid in sampling.GRIDS:
                plan = _plan((2,), 8, seed=count, calls=count, method=method, grid=grid)
                generate.examples(_fake(Traced), plan, 20)
            generate.interpolate(_fake(Traced), plan, 4, 4)
        assert traced == [(8, 2)] * (2 if method == "heun" else 1)


def test_sharded_parameters_are_gathered_once(monkeypatch):
    whole = bound("mlp", {**MLP, "width": 64}, (2,))
    where = sharding.of_state(sharding.mesh(1, 4), whole.params)
    parted = whole.replace(params=jax.device_put(whole.params, where))
    assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(parted.params))
    given = []
    make = generate._sample_batch
    monkeypatch.setattr(generate, "_sample_batch", lambda net, *rest: given.append(net) or make(net, *rest))
    made = generate.examples(parted, _plan((2,), 4), 10)
    assert len(given) == 3 and len({id(net) for net in given}) == 1
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(given[0].params))
    np.testing.assert_allclose(made, generate.examples(whole, _plan((2,), 4), 10), rtol=1e-5)


@flax.struct.dataclass
class Beyond(models.BoundNet):
    """F is NaN where x exceeds params, else 0."""

    def __call__(self, t, u, x):
        return jnp.where(x > self.params, jnp.nan, 0)


def test_batches_before_the_first_nan_are_yielded():
    noise = generate.examples(_fake(Still), _plan((1,), 4), 40)
    largest = np.max(noise[:12])  # so that the first three batches are sound
    first = int(np.argmax(noise[:, 0] > largest)) // 4
    assert first >= 3
    batches = generate.batches(_fake(Beyond).replace(params=largest), _plan((1,), 4), 40)
    for number in range(first):
        np.testing.assert_array_equal(next(batches), noise[4 * number : 4 * number + 4])
    with pytest.raises(generate.NotFinite):
        next(batches)


def test_the_next_batch_is_dispatched_while_one_is_used(monkeypatch):
    started = []
    make = generate._sample_batch
    monkeypatch.setattr(generate, "_sample_batch", lambda *arguments: started.append(1) or make(*arguments))
    batches = generate.batches(_fake(Still), _plan((2,), 4), 18)
    assert not started
    assert [(len(batch), len(started)) for batch in batches] == [(4, 2), (4, 3), (4, 4), (4, 5), (2, 5)]
    started.clear()
    batches = generate.batches(_fake(Still), _plan((2,), 4), 18)
    next(batches)
    batches.close()
    assert len(started) == 2


def _slerp(a, b, weight):
    """In float64, by the textbook's formula."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    angle = np.arccos(np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2)))
    return (np.sin((1 - weight) * angle) * a + np.sin(weight * angle) * b) / np.sin(angle)


def test_between_examples_the_noise_moves_along_an_arc(monkeypatch):
    net, plan = _fake(Still), _plan((5,), 4, seed=3)
    with jax.disable_jit():  # the quick compiler of tests rounds noise differently in different programs
        noise, made = generate.examples(net, plan, 6), generate.interpolate(net, plan, 3, 7)
    assert made.shape == (3, 7, 5) and made.dtype == np.float32
    np.testing.assert_array_equal(made[:, 0], noise[0::2])
    np.testing.assert_array_equal(made[:, -1], noise[1::2])
    expected = [[_slerp(noise[2 * k], noise[2 * k + 1], j / 6) for j in range(7)] for k in range(3)]
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)

    np.testing.assert_allclose(generate.interpolate(net, plan, 1, 2), made[:1, [0, -1]], rtol=1e-5)
    one_device = jax.make_mesh((1, 1), sharding.AXES, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "mesh", lambda: one_device)
    np.testing.assert_allclose(generate.interpolate(net, plan._replace(batch_size=100), 3, 7), made, rtol=1e-5)


def test_an_arc_between_vectors_of_one_norm_keeps_it():
    rng = np.random.default_rng(0)
    for shape in [(2,), (8, 8, 3)]:
        a, b = (x / np.linalg.norm(x) for x in rng.standard_normal((2, *shape)))
        for weight in (0.0, 0.1, 0.5, 0.9, 1.0):
            np.testing.assert_allclose(jnp.linalg.norm(generate.slerp(a, b, weight)), 1, rtol=1e-6)


@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-6, 0.0])
def test_vectors_almost_parallel(angle):
    a = np.array([3.0, 0.0, 4.0], np.float32)
    b = 2 * np.array([3 * np.cos(angle), 5 * np.sin(angle), 4 * np.cos(angle)], np.float32)
    for weight in (0.0, 0.25, 1.0):
        # So near, the arc is the chord but for angle^2 / 8 of it.
        chord = (1 - weight) * a + weight * b
        np.testing.assert_allclose(generate.slerp(a, b, weight), chord, rtol=1e-6 + angle**2 / 4, atol=1e-12)
    np.testing.assert_allclose(generate.slerp(a, -a, 0.25), 0.5 * a, rtol=1e-6)


def test_a_row_has_the_label_of_its_first_example():
    plan = _plan((2,), 4, calls=1)._replace(labels=np.array([3, 0, 9, 9, 1, 4, 2, 8], np.int32))
    label = generate.examples(_fake(Label, 10), plan, 8) - generate.examples(_fake(Still), plan, 8)
    along = generate.interpolate(_fake(Label, 10), plan, 4, 3) - generate.interpolate(_fake(Still), plan, 4, 3)
    np.testing.assert_allclose(along, np.broadcast_to(label[0::2, None], (4, 3, 2)), atol=1e-5)
    assert np.ptp(label[0::2]) > 0.5, "the rows differ"


def test_a_row_returns_to_the_noise_of_its_first_example():
    """With F = 0 two steps give x0 / 2 + noise / 2."""
    net, plan = _fake(Still), _plan((2,), 4)
    again = plan._replace(sampler=_sampler("consistency"))
    fresh = generate.examples(net, again, 6) - generate.examples(net, plan, 6) / 2
    along = generate.interpolate(net, again, 3, 4) - generate.interpolate(net, plan, 3, 4) / 2
    np.testing.assert_allclose(along, np.broadcast_to(fresh[0::2, None], (3, 4, 2)), atol=1e-6)


def test_rows_of_images_lead_from_example_to_example():
    net, plan = _fake(Still), _plan((8, 8, 3), 8)
    made, ends = generate.interpolate(net, plan, 2, 3), generate.examples(net, plan, 4)
    assert made.shape == (2, 3, 8, 8, 3) and made.dtype == np.uint8
    assert np.max(np.abs(made[:, [0, -1]].astype(int) - ends.reshape(2, 2, 8, 8, 3))) <= 1
