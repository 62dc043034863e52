"""The options of the DDPM++ network, and the formula of EDM's velocity. Its values are in test_song_golden.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import models
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import edm, song_names, song_unet
from sgflow_jax.models.song_unet import doubled, halved
from tests.song_rule import distance, make, net_by_rule, shapes

TINY = dict(channels=8, channel_mult=(1, 2), num_blocks=1, attention_sizes=(4,))
KEY = jax.random.key(0)


def tiny_net(label=None, **options):
    return net_by_rule(make(**{**TINY, **options}), (8, 8, 3)).replace(label=label)


T, U = jnp.array([0.1, 0.7]), jnp.array([0.3, 0.8])
X = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))


@jax.jit
def call(net, t=T, u=U, x=X):
    return net(t, u, x)


def test_velocity_of_a_denoiser_by_its_formula_near_both_ends():
    """A box replaces the network. EDM's formulas as published, in extended precision; their derivatives by a complex
    step."""
    d, tiny = np.longdouble(0.5), np.longdouble(1e-40)

    def box(xp, x, noise):
        return xp.tanh(x + 0.5 * noise[:, None])

    def formula(t, x):
        sigma = (1 - t) / t
        c_skip, c_out = d**2 / (sigma**2 + d**2), sigma * d / np.sqrt(sigma**2 + d**2)
        limited = np.where(
            sigma.real > 80, np.longdouble(80), np.where(sigma.real < 0.002, np.longdouble(0.002), sigma)
        )
        scaled = x / t[:, None] / np.sqrt(sigma**2 + d**2)[:, None]
        D = c_skip[:, None] * x / t[:, None] + c_out[:, None] * box(np, scaled, np.log(limited) / 4)
        return (D - x) / (1 - t)[:, None]

    t = np.array([1e-6, 1e-3, 0.02, 0.3, 0.9, 0.997, 1 - 1e-3, 1 - 1e-6], np.float32)
    x = np.linspace(-1.5, 2.0, 3 * len(t), dtype=np.float32).reshape(-1, 3)
    dx = np.ones_like(x)
    exact = t.astype(np.longdouble), x.astype(np.longdouble)
    value = formula(*exact)
    d_t = (formula(exact[0] + 1j * tiny, exact[1]) / tiny).imag
    d_x = (formula(exact[0] + 0j, exact[1] + 1j * tiny) / tiny).imag

    def ours(t, x):
        return edm.velocity(functools.partial(box, jnp), t, x)

    zero = np.zeros_like(t)
    np.testing.assert_allclose(ours(t, x), value.astype(np.float64), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(
        jax.jvp(ours, (t, x), (zero + 1, 0 * x))[1], d_t.astype(np.float64), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(jax.jvp(ours, (t, x), (zero, dx))[1], d_x.astype(np.float64), rtol=1e-5, atol=1e-5)

    # The limits: v = d net(x) - x at t = 0, and x + net(x / d) at t = 1, with derivatives like those close by.
    noise = np.log([80, 0.002]).astype(np.float64) / 4
    ends, at = np.array([0, 1], np.float32), x[[0, -1]]
    limits = [0.5 * np.tanh(at[0] + 0.5 * noise[0]) - at[0], at[1] + np.tanh(2 * at[1] + 0.5 * noise[1])]
    got, slope = jax.jvp(ours, (ends, at), (np.ones_like(ends), 0 * at))
    np.testing.assert_allclose(got, limits, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(slope, d_t[[0, -1]].astype(np.float64), rtol=1e-4)
    got, slope = jax.jvp(ours, (ends, at), (np.zeros_like(ends), np.ones_like(at)))
    np.testing.assert_allclose(slope, d_x[[0, -1]].astype(np.float64), rtol=1e-4)


@pytest.mark.parametrize("preconditioning", ["none", "edm"])
def test_every_derivative_is_finite_at_both_ends(preconditioning):
    net, ends = tiny_net(preconditioning=preconditioning), jnp.array([0.0, 1.0])

    def total(net, t, u, x):
        return jnp.sum(net(t, u, x) ** 2)

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3), allow_int=True))(net, ends, ends, X)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves((gradients[0].params, gradients[1:])))


def test_published_sizes():
    def count(model):
        return sum(value.size for value in jax.tree.leaves(shapes(model, (32, 32, 3))))

    assert count(make(augment_dim=6)) == 55_932_419
    assert count(make()) == 55_932_419 - 6 * 4 * 128


def test_initial_weights_have_their_spread_and_the_map_is_almost_the_identity():
    model = make(**TINY)
    params = jax.jit(model.init)(KEY, T, U, X)["params"]
    block = params["enc_4x4_block0"]
    bounds = {"conv0": 1.0, "qkv": 0.2**0.5, "conv1": 1e-5, "proj": 1e-5, "affine": 1.0}
    for name, factor in bounds.items():
        *area, fan_in, fan_out = block[name]["kernel"].shape
        bound = factor * np.sqrt(6 / ((fan_in + fan_out) * np.prod(area)))
        largest = np.abs(block[name]["kernel"]).max()
        assert 0.97 * bound < largest <= bound * (1 + 1e-6), name
        np.testing.assert_array_equal(block[name]["bias"], 0)
    assert 0 < np.abs(call(models.BoundNet(model, params))).max() < 1e-3


def test_resampling_by_hand():
    half, double = (jax.jit(resample, static_argnums=1) for resample in (halved, doubled))
    x = np.arange(1.0, 5.0, dtype=np.float32)[None, :, None, None] * np.ones((1, 4, 4, 1), np.float32)
    np.testing.assert_allclose(half(x, (1, 1))[0, :, 0, 0], [1.5, 3.5])
    np.testing.assert_allclose(double(x, (1, 1))[0, :, 3, 0], [1, 1, 2, 2, 3, 3, 4, 4])
    rows = np.array([(3 * 1 + 3 * 2 + 3) / 8, (2 + 3 * 3 + 3 * 4) / 8])
    np.testing.assert_allclose(half(x, (1, 3, 3, 1))[0, :, 0, 0], rows * 7 / 8)
    rows = np.array([3, 5, 7, 9, 11, 13, 15, 12]) / 4
    np.testing.assert_allclose(double(x, (1, 3, 3, 1))[0, :, 1, 0], rows)
    # The transpose, times 4.
    small = np.random.default_rng(0).standard_normal((1, 2, 2, 1)).astype(np.float32)
    for taps in ((1, 1), (1, 3, 3, 1)):
        np.testing.assert_allclose(4 * np.sum(half(x, taps) * small), np.sum(x * double(small, taps)), rtol=1e-5)


@pytest.mark.slow
def test_a_dropout_key_fixes_the_masks_of_one_example_in_any_batch():
    net = tiny_net(dropout=0.5).replace(dropout_keys=jax.random.split(KEY, 2))
    out = call(net)
    np.testing.assert_array_equal(out, call(net))
    alone = call(net.restrict(lambda a: a[1:]), T[1:], U[1:], X[1:])
    np.testing.assert_allclose(alone, out[1:], rtol=1e-4, atol=1e-5)
    assert distance(call(net.replace(dropout_keys=net.dropout_keys[::-1])), out) > 1e-2
    assert distance(call(net.replace(dropout_keys=None)), out) > 1e-2


def test_every_block_has_its_own_masks(monkeypatch):
    seen = []
    monkeypatch.setattr(song_unet, "dropout", lambda h, keys, rate: seen.append(jax.random.key_data(keys)) or h)
    net = tiny_net(dropout=0.5).replace(dropout_keys=jax.random.split(KEY, 2))
    keys = jax.jit(lambda net: net(T, U, X) is None or jnp.concatenate(seen))(net)
    assert len(keys) == 2 * (3 + 2 + 1 + 4)  # examples, and blocks down, in the middle, resampling up and up
    assert len(np.unique(keys, axis=0)) == len(keys)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32(mixed_dtypes):
    net = tiny_net()
    half = net.replace(model=make(**TINY, dtype="bfloat16"))
    out = call(half)
    assert out.dtype == jnp.float32
    assert 1e-4 < distance(out, call(net)) < 0.05
    assert all(value.dtype == jnp.float32 for value in jax.tree.leaves(shapes(half.model, (8, 8, 3))))


@pytest.mark.slow
def test_remat_changes_no_value_and_no_gradient():
    net = tiny_net()

    @jax.jit
    def value_and_gradient(net):
        return jax.value_and_grad(lambda params: jnp.sum(net.replace(params=params)(T, U, X) ** 2))(net.params)

    expected = value_and_gradient(net)
    for remat in ("elementwise", "block"):
        found = value_and_gradient(net.replace(model=make(**TINY, remat=remat)))
        for got, true in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, true, rtol=1e-4, atol=1e-5 * np.abs(true).max())


@pytest.mark.parametrize("preconditioning", ["none", "edm"])
def test_labels_and_their_absence(preconditioning):
    options = dict(num_classes=10, label_dropout=0.1, preconditioning=preconditioning)
    net = tiny_net(label=jnp.array([3, 10]), **options)
    assert net.params["map_label"]["kernel"].shape[0] == 10
    out, null = call(net), call(net.unconditional())
    np.testing.assert_allclose(null[1], out[1], rtol=1e-5, atol=1e-6)
    assert np.abs(null[0] - out[0]).max() > 1e-3
    # The label's row, times the square root of the number of classes, is one more bias.
    params = jax.tree.map(lambda p: p, net.params)
    params["map_label"]["bias"] = params["map_label"]["bias"] + 10**0.5 * params["map_label"]["kernel"][3]
    np.testing.assert_allclose(call(net.replace(params=params).unconditional())[0], out[0], rtol=1e-4, atol=1e-5)


def test_an_augmentation_label_of_zeros_is_none():
    net, label = tiny_net(augment_dim=6), jnp.zeros((2, 6)).at[1].set(1.0)
    out, told = call(net), call(net.replace(augment=label))
    np.testing.assert_allclose(told[0], out[0], rtol=1e-4, atol=1e-5)
    assert distance(told[1], out[1]) > 1e-3
    swapped = net.replace(augment=label).restrict(lambda a: a[::-1])
    np.testing.assert_allclose(call(swapped, T[::-1], U[::-1], X[::-1])[::-1], told, rtol=1e-4, atol=1e-5)


def test_names_of_pytorch():
    value = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3)
    path, kernel = song_names.parameter("enc.8x8_block0.conv0.weight", value, interleaved=True)
    assert path == ("enc_8x8_block0", "conv0", "kernel")
    np.testing.assert_array_equal(kernel[1, 2, 0, 1], value[1, 0, 1, 2])
    bias = np.array(["q0", "k0", "v0", "q1", "k1", "v1"])
    path, parts = song_names.parameter("dec.8x8_in0.qkv.bias", bias, interleaved=True)
    assert path == ("dec_8x8_in0", "qkv", "bias") and list(parts) == ["q0", "q1", "k0", "k1", "v0", "v1"]
    np.testing.assert_array_equal(song_names.parameter("dec.8x8_in0.qkv.bias", bias, interleaved=False)[1], bias)
    assert song_names.parameters({"enc.8x8_down.conv0.resample_filter": value}, interleaved=False) == {}
    for key in ("map_layer0.scale", "weight", "enc..weight"):
        with pytest.raises(InputError, match=f"no parameter of song_unet is called {key}"):
            song_names.parameter(key, value, interleaved=False)


@pytest.mark.parametrize(
    "options, shape, match",
    [
        ({}, (2,), "model.name is 'song_unet', for images, but the data are points"),
        ({"attention_sizes": (5,)}, (8, 8, 3), "model.attention_sizes is .*heights"),
        ({"augment_dim": -1}, (8, 8, 3), "model.augment_dim is -1: use 0 or more"),
        ({"preconditioning": "vp"}, (8, 8, 3), "model.preconditioning is 'vp': use one of none, edm"),
    ],
)
def test_options_that_do_not_fit_are_named(options, shape, match):
    with pytest.raises(InputError, match=match):
        make(**{**TINY, **options}).check(shape)
