import dataclasses
import hashlib
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from eval import features
from eval.features import inception, weights
from sgflow_jax.interfaces import InputError


def _random(key, shape):
    """The weights of the golden features, seeded by the PyTorch key."""
    z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    rules = {
        "conv.weight": lambda: z * np.sqrt(2 / np.prod(shape[1:])),
        "fc.weight": lambda: z * np.sqrt(2 / shape[1]),
        "fc.bias": lambda: z * 0.01,
        "bn.weight": lambda: 1 + 0.1 * z,
        "bn.bias": lambda: 0.1 * z,
        "bn.running_mean": lambda: 0.1 * z,
        "bn.running_var": lambda: np.exp(0.1 * z),
    }
    return rules[".".join(key.split(".")[-2:])]().astype(np.float32)


@pytest.fixture(scope="module")
def arrays():
    params = jax.eval_shape(inception.InceptionV3().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))["params"]
    shapes = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for path, leaf in traverse_util.flatten_dict(params, sep=".").items():
        if path.endswith(".kernel"):
            prefix = path.removesuffix(".kernel")
            height, width, inputs, outputs = leaf.shape
            shapes[f"{prefix}.conv.weight"] = (outputs, inputs, height, width)
            shapes |= {f"{prefix}.bn.{name}": (outputs,) for name in "weight bias running_mean running_var".split()}
    return {key: _random(key, shape) for key, shape in shapes.items()}


def test_names_and_shapes_equal_pytorch(arrays):
    assert len(arrays) == 472
    assert sum(a.sum(dtype=np.float64) for a in arrays.values()) == pytest.approx(34651.1001, abs=1e-3)
    # Without the exponentials: their last digit depends on the platform.
    kept = [arrays[key].astype("<f4").tobytes() for key in sorted(arrays) if not key.endswith("running_var")]
    digest = hashlib.sha256(b"".join(kept)).hexdigest()
    assert digest == "0a39ae88db6ae0aa228a3e7efb2a120c0f78695f344ec182b013bc8d3e8d655e"


def _assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)
    assert np.linalg.norm(found - expected) < 5e-6 * np.linalg.norm(expected)


def _taps(params, images):
    taps = inception.InceptionV3().apply({"params": params}, inception.PREPROCESS["half_pixel"](images))
    return jnp.concatenate(list(taps.values()), axis=-1)


@pytest.fixture(scope="module")
def file(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.npz"
    np.savez(path, **arrays)
    return str(path)


def test_features_equal_pytorch(shared, file):
    golden = np.load(shared / "golden" / "inception_fid_random.npz")
    made = features.make("inception", weights=file, resize="half_pixel")
    _assert_close(made(golden["images"]), golden["features"])

    taps = dataclasses.replace(made.extract, apply=_taps)(golden["images"])
    for name, tap in zip(
        ("features_64", "features_192", "features_768", "features"),
        np.split(taps, [64, 256, 1024], axis=1),
        strict=True,
    ):
        _assert_close(tap, golden[name])


@pytest.mark.slow
def test_the_tf1_resize_changes_the_features_by_the_measured_amount(shared, file):
    golden = np.load(shared / "golden" / "inception_fid_random.npz")
    default = features.make("inception", weights=file)
    assert default.resize == "tf1"  # as in published FIDs
    found = default(golden["images"])
    # Measured in PyTorch: 8.7e-3 by the resize alone, 8e-4 by the scale alone.
    moved = np.linalg.norm(found - golden["features"]) / np.linalg.norm(golden["features"])
    assert 8e-3 < moved < 9.5e-3


@pytest.mark.parametrize("rule, white", [("half_pixel", 1), ("tf1", 127 / 128)])
def test_scale(rule, white):
    for value, expected in ((0, -1), (255, white)):
        images = inception.PREPROCESS[rule](jnp.full((1, 8, 8, 3), value, jnp.uint8))
        assert images.shape == (1, 299, 299, 3)
        np.testing.assert_allclose(images, expected, atol=1e-6)


def test_unused_weights_may_be_absent(arrays):
    tracked = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array(0)}
    needed = {key: a for key, a in arrays.items() if not key.startswith("fc.")}
    made = [inception.network(a, "tf1").params for a in (needed, arrays | tracked)]
    jax.tree.map(np.testing.assert_array_equal, *made)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"Mixed_5b.branch1x1.bn.bias": None}, r"missing: Mixed_5b.branch1x1.bn.bias \(1 in all\)"),
        ({"AuxLogits.fc.bias": np.zeros(1), "z": np.zeros(1)}, r"unexpected: AuxLogits.fc.bias \(2 in all\)"),
        ({"Conv2d_1a_3x3.conv.weight": np.zeros((3, 3, 3, 32))}, r"wrong shape: Conv2d_1a_3x3.conv.weight"),
    ],
)
def test_rejects_weights_of_another_network(arrays, change, match):
    changed = {key: a for key, a in (arrays | change).items() if a is not None}
    with pytest.raises(InputError, match=match):
        inception.network(changed, "half_pixel")


def test_rejects_an_unknown_rule():
    with pytest.raises(InputError, match="unknown resize rule 'bicubic'"):
        inception.network({}, "bicubic")


def test_a_folded_batch_norm_equals_convolution_then_batch_norm():
    rng = np.random.default_rng(0)
    arrays = {f"n.{name}": rng.uniform(0.5, 2, 4) for name in "weight bias running_mean running_var".split()}
    arrays["c.weight"] = rng.standard_normal((4, 3, 3, 5))
    kernel, bias = weights.fold_batch_norm(arrays, "c", "n")
    x = rng.standard_normal((2, 6, 7, 3)).astype(np.float32)
    folded = nn.Conv(4, (3, 5)).apply({"params": {"kernel": kernel, "bias": bias}}, x)

    kernel = arrays["c.weight"].transpose(2, 3, 1, 0).astype(np.float32)
    h = nn.Conv(4, (3, 5), use_bias=False).apply({"params": {"kernel": kernel}}, x)
    params = {"scale": arrays["n.weight"], "bias": arrays["n.bias"]}
    stats = {"mean": arrays["n.running_mean"], "var": arrays["n.running_var"]}
    variables = jax.tree.map(np.float32, {"params": params, "batch_stats": stats})
    expected = nn.BatchNorm(use_running_average=True, epsilon=1e-3).apply(variables, h)
    np.testing.assert_allclose(folded, expected, rtol=1e-4, atol=1e-5)


def test_reads_npz_files_and_rejects_damaged_ones(tmp_path):
    path = tmp_path / "weights.npz"
    with pytest.raises(InputError, match="weights.npz is missing"):
        weights.read(path)
    np.savez(path, **{"fc.bias": np.arange(3.0)})
    np.testing.assert_array_equal(weights.read(path)["fc.bias"], np.arange(3.0))

    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(np.float64(2).tobytes())] ^= 1
    objects = tmp_path / "objects.npz"
    np.savez(objects, a=np.array([{}], object), allow_pickle=True)
    for damaged in (whole[:-40], whole[40:], b"", b"text", bytes(changed), objects.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(
            InputError, match=r"weights.npz is damaged or not an .npz of plain arrays \(\w+\): download it again$"
        ):
            weights.read(path)
