"""Networks of other projects as parameters: golden files of PyTorch, and small files written as PyTorch writes them."""

import jax
import numpy as np
import pytest

from sgflow_jax import flow_map, models
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import BoundNet
from sgflow_jax.weights import released
from tests import song_rule, torch_writer
from tests.song_rule import SMALLEST_SHAPE, smallest


def _same(tree, arrays, prefix, interleaved=False):
    expected = released.song_names.parameters(
        {key.removeprefix(prefix): a for key, a in arrays.items() if key.startswith(prefix)}, interleaved
    )
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def _read(path, content: bytes, average=None) -> released.Released:
    path.write_bytes(content)
    return released.of_torch(str(path), average, {})


def test_samples_equal_pytorch(shared):
    golden = np.load(shared / "golden" / "py_meanflow_small.npz")
    found = released.of_torch(str(shared / "golden" / "py_meanflow_small.pth"), None, {})
    assert (found.step, found.shape, found.denoiser) == (15999, (16, 16, 3), False)
    assert found.facts["average"] == "model/net_ema1." and found.facts["raw"] == "model/net."
    jump = jax.jit(flow_map.apply)
    for name, params in {"net": found.params, "net_ema1": found.average}.items():
        net, x = BoundNet(models.make(**found.model), params), golden["noise"]
        one = jump(net, 0.0, 1.0, x)
        two = jump(net, 0.5, 1.0, jump(net, 0.0, 0.5, x))
        np.testing.assert_allclose(one, golden[f"{name}/steps_1"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(two, golden[f"{name}/steps_2"], rtol=0, atol=1e-5)


def test_a_denoiser_equals_pytorch(shared):
    golden = np.load(shared / "golden" / "edm_small.npz")
    state, network = (released.of_torch(str(shared / "golden" / f"edm_small.{end}"), None, {}) for end in ("pt", "pkl"))
    assert state.model == network.model and state.denoiser
    jax.tree.map(np.testing.assert_array_equal, state.average, network.average)
    net = BoundNet(models.make(**network.model), network.average)
    v = jax.jit(lambda t, x: net(t, t, x))(golden["t"], golden["x"])
    assert song_rule.distance(v, golden["velocity"]) < 1e-5


def test_layouts(tmp_path):
    """Which network becomes the average and which the last parameters, in each layout of docs/weights.md."""
    nets = {name: smallest(f"{name}.") for name in ("net", "net_ema", "net_ema1", "net_ema2")}
    model = {"num_updates": np.array(3), **{key: a for arrays in nets.values() for key, a in arrays.items()}}
    args = torch_writer.Call(
        "argparse.Namespace", state={"lr": 1e-3, "device": torch_writer.Call("torch.device", "cuda")}
    )
    meanflow = {"model": model, "optimizer": {"state": {0: {"exp_avg": np.ones(2)}}}, "epoch": 7, "args": args}
    for write in (torch_writer.archive, torch_writer.legacy):
        found = _read(tmp_path / "a.pth", write(meanflow))
        _same(found.average, model, "net_ema1.")
        _same(found.params, model, "net.")
        assert found.step == 7
    found = _read(tmp_path / "a.pth", torch_writer.archive(meanflow), "net_ema2")
    _same(found.average, model, "net_ema2.")
    _same(found.params, model, "net.")

    raw, average = smallest("network."), {key: 2 * a for key, a in smallest("network.").items()}
    found = _read(tmp_path / "a.pth", torch_writer.archive({"model": raw, "ema_model": average, "step": 9}))
    _same(found.average, average, "network.")
    _same(found.params, raw, "network.")

    one = smallest("model.", "edm", num_classes=3, augment_dim=9)
    pickled = torch_writer.plain({"ema": torch_writer.as_modules("EDMPrecond", one, sigma_data=0.5), "loss_fn": None})
    for content in (torch_writer.archive(one), torch_writer.archive({"ema": one}), pickled):
        found = _read(tmp_path / "a.pkl", content)
        _same(found.average, one, "model.", interleaved=True)
        assert found.params is found.average and found.step == 1
        assert (found.model["num_classes"], found.model["augment_dim"]) == (3, 9)


def test_half_precision_is_widened(tmp_path):
    one = {key: a.astype(np.float16) for key, a in smallest().items()}
    found = _read(tmp_path / "a.pt", torch_writer.archive(one))
    assert {a.dtype for a in jax.tree.leaves(found.params)} == {np.dtype(np.float32)}
    _same(found.params, {key: a.astype(np.float32) for key, a in one.items()}, "")


def test_the_options_of_the_network(tmp_path):
    options = dict(channels=8, channel_mult=(2, 1), num_blocks=2, attention_sizes=(4,), augment_dim=6)
    found = _read(tmp_path / "a.pt", torch_writer.archive(smallest(**options)))
    assert found.model == {**song_rule.base.song_unet().to_dict(), **options}
    assert found.shape == SMALLEST_SHAPE


FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32)[None, None] / 64


def _changed(**changes):
    """The small network with some arrays replaced; None leaves one out."""
    return {key: a for key, a in {**smallest(), **changes}.items() if a is not None}


def _edm(**facts):
    return torch_writer.plain({"ema": torch_writer.as_modules("EDMPrecond", smallest("model.", "edm"), **facts)})


@pytest.mark.parametrize(
    "content, match",
    {
        "another network": ({"conv1.weight": np.ones((4, 3, 3, 3), np.float32)}, "first array is 'conv1.weight'"),
        "no arrays": ({"epoch": 3}, "no arrays"),
        "missing": (_changed(**{"map_layer1.bias": None}), "the array map_layer1.bias is missing"),
        "missing, from which sizes follow": (_changed(**{"map_layer0.weight": None}), "map_layer0.weight is missing"),
        "unknown": (_changed(**{"dec.8x8_new.weight": np.ones(4, np.float32)}), "'dec.8x8_new.weight' is unknown"),
        "shape": (
            _changed(**{"map_layer1.bias": np.ones(3, np.float32)}),
            r"the shape \(3,\), not",
        ),
        "dimensions": (_changed(**{"map_layer0.weight": np.ones(3, np.float32)}), r"has the shape \(3,\)"),
        "not finite": (
            _changed(**{"map_layer1.bias": np.full(16, np.nan, np.float32)}),
            "map_layer1.bias has NaN or infinity",
        ),
        "integers": (_changed(**{"map_layer1.bias": np.ones(16, np.int64)}), "has the type int64"),
        "other filter": (
            _changed(**{"enc.8x8_down.conv0.resample_filter": FILTER[:, :, 1:3, 1:3]}),
            "another filter",
        ),
        "beside the network": ({"model": {**smallest("net."), "head.weight": np.ones(3, np.float32)}}, "head.weight"),
        "several": (
            {"a": smallest("model."), "b": smallest("model.")},
            "several networks, a, b: choose one",
        ),
        "two sizes": ({"model": {**smallest("net."), **smallest("net_ema1.", augment_dim=6)}}, "networks of different"),
        "channels": (_changed(**{"enc.8x8_conv.weight": np.ones((3, 1, 3, 3), np.float32)}), "cannot be"),
    }.values(),
)
def test_what_is_refused(content, match, tmp_path):
    with pytest.raises(InputError, match=match) as caught:
        _read(tmp_path / "a.pth", torch_writer.archive(content))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_other_denoisers_are_refused(tmp_path):
    with pytest.raises(InputError, match="sigma_data 1.0"):
        _read(tmp_path / "a.pkl", _edm(sigma_data=1.0))
    _read(tmp_path / "a.pkl", _edm(sigma_data=0.5))
    with pytest.raises(InputError, match="--average=net_ema9 is not in .*: use one of ema"):
        _read(tmp_path / "a.pkl", _edm(), "net_ema9")


def test_the_right_filter_is_taken(tmp_path):
    arrays = {**smallest(), "enc.8x8_down.conv0.resample_filter": FILTER}
    assert _read(tmp_path / "a.pt", torch_writer.archive(arrays)).shape == SMALLEST_SHAPE
