"""What leaves the gradient unchanged: recomputation, microbatches, stacked tangents. What rounding does to it."""

import collections
import re

import jax
import numpy as np
import pytest

from eval import rounding
from sgflow_jax import build, data, sampling
from sgflow_jax.models import BoundNet
from sgflow_jax.train_step import Examples
from tests import tiny

GUIDED = {"objective.guidance": 2.0, "model.num_classes": 3, "model.label_dropout": 0.5}
CASES = {
    "sgflow": {"estimator": "split", "prob_diagonal": 0.75},  # an odd number in a group is off the diagonal
    "psd": {"split": "uniform", "weight": "residual"},
    "fmm": {"velocity_target": "batch"},  # needs the data of the whole batch in every part
    "consistency": {"velocity_target": "batch"},
    "mean_flow": {"velocity_target": "batch"},
}


def _digits(objective):
    """A U-Net of one block."""
    config = tiny.digits(objective)
    config.model.num_blocks = 1
    return config


def _gradient(config):
    """((loss, seen), gradient) at parameters none of which is zero."""
    step = build.train_step(config)
    batch = build.source(config).batch(0, 0, config.data.batch_size, slice(None))
    if config.model.num_classes:
        batch["label"] = np.arange(config.data.batch_size, dtype=np.int32) // 2 % config.model.num_classes
    state = jax.jit(lambda key: step.init(key, data.shape(config.data)))(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), state.params)
    quick = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(step.gradient, compiler_options=quick)(params, state, batch, jax.random.key(1))


def _difference(a, b):
    """The relative difference over all numbers of two trees."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    assert np.linalg.norm(b) > 0.1
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("objective", CASES)
def test_microbatches_give_the_gradient_of_the_batch(objective):
    config = tiny.mixture(objective)
    config.objective.update(CASES[objective])
    config.data.batch_size = 32
    if objective == "mean_flow":
        config.update_from_flattened_dict(GUIDED)
    whole = _gradient(config)
    config.train.microbatches = 4
    assert _difference(_gradient(config), whole) < 1e-6


@pytest.mark.slow
def test_recomputation_does_not_change_the_gradient():
    """Nor do stacked tangents or microbatches, even with dropout."""
    config = _digits("sgflow")
    config.model.attention_sizes = (8,)
    config.model.dropout = 0.2
    plain = _gradient(config)
    config.model.remat, config.train.microbatches = "elementwise", 2
    config.objective.tangents = "vmap"
    assert _difference(_gradient(config), plain) < 1e-6


def test_a_part_has_whole_groups_from_all_over_the_batch():
    drawn = {"every other": np.arange(6), "step": np.int32(7)}
    parts = Examples(drawn, np.arange(12), None).parts(3, 2)
    np.testing.assert_array_equal(parts.label, [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]])
    np.testing.assert_array_equal(parts.drawn["every other"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(parts.drawn["step"], [7, 7, 7])


def _step(config):
    """The training step, and the arguments of its gradient."""
    step = build.train_step(config)
    state = jax.eval_shape(lambda key: step.init(key, data.shape(config.data)), jax.random.key(0))
    batch = data.batch_like(config.data, config.data.batch_size)
    return step, (state.params, state, batch, jax.random.key(0))


def _types_of_convolutions(config):
    step, args = _step(config)
    text = str(jax.make_jaxpr(step.gradient)(*args))
    return collections.Counter(re.findall(r":(\w+)\[[\d,]*\] = conv_general_dilated", text))


def _products(lowered):
    """The number of products of a program for each (type, precision)."""
    found = collections.Counter()
    for line in lowered.as_text().splitlines():
        if "dot_general" in line or "stablehlo.convolution" in line:
            (precision,) = set(re.findall(r"HIGHEST|HIGH|DEFAULT", line)) or {"none"}
            found[re.findall(r"(bf16|f\d+)>", line)[0], precision] += 1
    return found


def _gradient_products(config):
    step, args = _step(config)
    return _products(jax.jit(step.gradient).lower(*args))


@pytest.mark.parametrize(
    "make, objective, options",
    [
        (_digits, "sgflow", {"tangents": "vmap"}),
        (tiny.mixture, "sgflow", {"velocity_target": "batch"}),
        (tiny.mixture, "fmm", {"velocity_target": "batch"}),
        (tiny.mixture, "esd", {"stopgrad": "none"}),
        (tiny.mixture, "ctm", {}),
    ],
)
def test_float32_products_of_a_step_are_float32_on_every_device(make, objective, options):
    config = make(objective)
    config.objective.update(options)
    if make is _digits:
        config.model.attention_sizes, config.model.remat = (8,), "elementwise"
    with jax.default_matmul_precision("bfloat16"):  # the user's own default must not matter
        found = _gradient_products(config)
    assert set(found) == {("f32", "HIGHEST")} and found.total() > 5


def test_lower_precision_keeps_some_layers_exact():
    """The same layers as with bfloat16."""
    config = tiny.digits("flow_matching")
    exact = _gradient_products(config).total()
    config.model.precision = "default"
    less = _gradient_products(config)
    config.model.dtype, config.model.precision = "bfloat16", "highest"
    half = _gradient_products(config)
    assert set(less) == {("f32", "HIGHEST"), ("f32", "DEFAULT")} and less.total() == half.total() == exact
    assert half == {("f32", "HIGHEST"): less["f32", "HIGHEST"], ("bf16", "DEFAULT"): less["f32", "DEFAULT"]}


@pytest.mark.parametrize("precision, expected", [("highest", {"HIGHEST"}), ("high", {"HIGH"})])
def test_a_sampling_step_has_the_precision_of_its_network(precision, expected):
    config = tiny.mixture()
    config.model.precision = precision
    step, (params, *_) = _step(config)
    x = jax.ShapeDtypeStruct((4, 1), np.float32)
    lowered = jax.jit(lambda params, x: sampling.sample(BoundNet(step.model, params), x, np.array([0.0, 1.0])))
    assert {each for _, each in _products(lowered.lower(params, x))} == expected


def test_bfloat16_is_for_blocks_only():
    config = _digits("flow_matching")
    found = _types_of_convolutions(config)
    assert set(found) == {"f32"}
    config.model.dtype = "bfloat16"
    half = _types_of_convolutions(config)
    # Stem and head: the value of each, its gradient to the parameters, and the head's to its input.
    assert half == {"f32": 5, "bf16": found["f32"] - 5}


@pytest.mark.slow
def test_bfloat16_changes_the_gradient_little():
    config = _digits("mean_flow")
    config.data.batch_size = 16
    exact = _gradient(config)
    config.model.dtype = "bfloat16"
    half = _gradient(config)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(half))
    assert 1e-4 < _difference(half, exact) < 0.01


def test_errors_of_rounding_by_hand():
    """Two batches with gradients of norm 1, off by 0.1 and 0.3 in one direction."""
    exact, off = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 0.3]])
    found = rounding.compare(exact, exact + off)
    np.testing.assert_allclose(found.each, [0.1, 0.3])
    np.testing.assert_allclose([found.shared, found.noise], [0.2, 1.0])
