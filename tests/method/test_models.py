import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10
from sgflow_jax import models
from sgflow_jax.interfaces import InputError
from sgflow_jax.models.embeddings import time_features
from sgflow_jax.models.unet import norm_groups

UNET = dict(
    channels=8,
    channel_mult=(1, 2),
    num_blocks=1,
    attention_sizes=(),
    dropout=0.0,
    time_scale=10.0,
    num_classes=0,
    label_dropout=0.0,
    dtype="float32",
    precision="highest",
    remat="none",
)
MLP = dict(
    width=16,
    depth=2,
    time_dim=8,
    time_scale=10.0,
    num_classes=0,
    label_dropout=0.0,
    dtype="float32",
    precision="highest",
)


def bound(name, options, shape, label=None, offset=0.05):
    model = models.make(name, **options)
    t, x = jnp.zeros(1), jnp.zeros((1, *shape))
    params = jax.jit(model.init)(jax.random.key(0), t, t, x, None if label is None else label[:1])["params"]
    return models.BoundNet(model, jax.tree.map(lambda p: p + offset, params), label)


@jax.jit
def _call(net, t, u, x, label=None):
    return net(t, u, x, label)


CASES = [("unet", UNET, (8, 8, 3)), ("mlp", MLP, (2,))]


@pytest.mark.parametrize("name, options, shape", CASES)
def test_starts_at_zero_in_float32_parameters(name, options, shape, mixed_dtypes):
    net = bound(name, {**options, "dtype": "bfloat16"}, shape, offset=0)
    x = jnp.ones((2, *shape))
    out = _call(net, jnp.array([0.1, 0.2]), jnp.array([0.3, 0.4]), x)
    assert out.shape == x.shape and out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 0)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(net.params))


@pytest.mark.parametrize("name, options, shape", CASES)
def test_sees_both_times_each_example_apart(name, options, shape):
    net = bound(name, options, shape)
    x = jax.random.normal(jax.random.key(1), (3, *shape))
    t, u = jnp.array([0.1, 0.1, 0.3]), jnp.array([0.5, 0.9, 0.5])
    out = _call(net, t, u, x)
    assert np.any(out[0] != _call(net, t, t, x)[0])
    assert np.any(out[0] != _call(net, u, u, x)[0])
    np.testing.assert_allclose(out[2:], _call(net, t[2:], u[2:], x[2:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, options, shape", CASES)
def test_labels_condition_and_restrict(name, options, shape):
    label = jnp.array([3, 5])
    net = bound(name, {**options, "num_classes": 10}, shape, label, offset=0.0)
    net = net.replace(
        params=jax.tree.map(lambda p: p + 0.05 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), net.params)
    )
    x = jnp.ones((2, *shape))
    t = jnp.zeros(2)
    out = _call(net, t, t, x)
    assert np.any(out[0] != out[1])
    np.testing.assert_allclose(_call(net, t, t, x, label=label[::-1]), out[::-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(_call(net.restrict(lambda a: a[1:]), t[1:], t[1:], x[1:]), out[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, options, shape", CASES)
def test_the_null_class_is_one_more_label(name, options, shape):
    label = jnp.array([3, 10])
    net = bound(name, {**options, "num_classes": 10, "label_dropout": 0.1}, shape, label, offset=0.0)
    assert [p.shape[0] for p in jax.tree.leaves(net.params["label"])] == [11]
    net = net.replace(
        params=jax.tree.map(lambda p: p + 0.05 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), net.params)
    )
    null = net.unconditional()
    np.testing.assert_array_equal(null.label, [10, 10])
    np.testing.assert_array_equal(net.has_class(), [True, False])
    t, x = jnp.zeros(2), jnp.ones((2, *shape))
    there, all_null = _call(net, t, t, x), _call(null, t, t, x)
    np.testing.assert_array_equal(all_null[1], there[1])
    assert np.any(all_null[0] != there[0]) and np.all(np.isfinite(all_null))
    # Equal examples of one batch may be rounded differently.
    np.testing.assert_allclose(all_null[0], all_null[1], rtol=1e-4, atol=1e-6)


def test_bfloat16_is_close_to_float32(mixed_dtypes):
    net = bound("unet", UNET, (8, 8, 3))
    half = net.replace(model=models.make("unet", **{**UNET, "dtype": "bfloat16"}))
    x, t = jax.random.normal(jax.random.key(1), (2, 8, 8, 3)), jnp.array([0.1, 0.7])
    difference = jnp.linalg.norm(_call(half, t, t, x) - _call(net, t, t, x)) / jnp.linalg.norm(_call(net, t, t, x))
    assert 0 < difference < 0.05


def test_time_features_by_hand(x64):
    """Frequencies 10 and 10 / 1e4: the highest is time_scale, so d/dt is at most time_scale."""
    got = time_features(jnp.array([0.2]), 4, 10.0)
    np.testing.assert_allclose(got, [[np.cos(2.0), np.cos(2e-4), np.sin(2.0), np.sin(2e-4)]])


def test_a_normalisation_has_at_most_32_groups_of_one_size():
    groups = {4: 1, 16: 4, 48: 12, 128: 32, 132: 22, 256: 32, 384: 32, 1536: 32, 4 * 67: 4}
    assert {channels: norm_groups(channels) for channels in groups} == groups


def test_cifar10_network_has_the_paper_s_size():
    config = cifar10.get_config()
    model = models.make(**config.model)
    t, x = jnp.zeros(1), jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), t, t, x))["params"]
    assert 28e6 < sum(np.prod(s.shape) for s in jax.tree.leaves(shapes)) < 37e6


@pytest.mark.parametrize(
    "name, options, match",
    [
        ("resnet", {}, "'resnet'.*unet, mlp"),
        ("mlp", {**MLP, "channels": 3}, "channels.*width"),
        ("mlp", {**MLP, "dtype": "float16"}, "'float16'.*bfloat16"),
        ("mlp", {**MLP, "label_dropout": 0.1}, "label_dropout is 0.1: use .* 0 without labels"),
        ("unet", {**UNET, "num_classes": 10, "label_dropout": 1.0}, "label_dropout is 1.0: use a number >= 0 and < 1"),
        ("mlp", {**MLP, "precision": "tf32"}, "precision is 'tf32'.*highest, high, default"),
    ],
)
def test_bad_fields_are_named(name, options, match):
    with pytest.raises(InputError, match=match):
        models.make(name, **options)


@pytest.mark.parametrize(
    "name, options, shape, match",
    [
        ("unet", UNET, (2,), "points"),
        ("mlp", MLP, (8, 8, 1), "images"),
        ("unet", {**UNET, "channel_mult": (1, 1, 1, 1, 1)}, (8, 8, 1), "halved"),
        ("unet", {**UNET, "attention_sizes": (7,)}, (8, 8, 1), "heights"),
        ("unet", {**UNET, "channels": 6}, (8, 8, 1), "multiple of 4"),
        ("unet", {**UNET, "dropout": 1.0}, (8, 8, 1), "dropout"),
        ("mlp", {**MLP, "time_dim": 3}, (1,), "even"),
    ],
)
def test_fields_that_do_not_fit_the_data_are_named(name, options, shape, match):
    with pytest.raises(InputError, match=match):
        models.make(name, **options).check(shape)
