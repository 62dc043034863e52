"""--mode=export: parameters come back bit for bit, and a sampler runs with JAX alone."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType

from sgflow_jax import models, sample_run
from sgflow_jax.config import fields
from sgflow_jax.devices import sharding
from sgflow_jax.display import figures
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access
from sgflow_jax.weights import export_run, import_run, program
from tests import tiny

COUNT = 20


@pytest.mark.parametrize("parameters", ["ema", "raw"])
def test_parameters_come_back_bit_for_bit(parameters, line_run, tmp_path):
    file = str(tmp_path / "a.safetensors")
    export_run.export(line_run, tiny.mixture(), file, _request(parameters=parameters))
    import_run.import_weights(file, str(tmp_path / "run"))
    before = access.open(line_run, parameters=parameters)
    for after in (access.open(str(tmp_path / "run"), parameters=each) for each in ("ema", "raw")):
        jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
        assert before.fingerprint == after.fingerprint
        assert (before.step, before.config, before.data) == (after.step, after.config, after.data)


def test_the_project_of_a_log_is_not_exported(line_run, tmp_path, monkeypatch):
    """Who continues from the file would write to it."""
    opened, *rest = sample_run.open_run(line_run, tiny.mixture(), _request())
    config = opened.config.copy_and_resolve_references()
    config.log.wandb = "mine"
    monkeypatch.setattr(export_run, "open_run", lambda *_: (dataclasses.replace(opened, config=config), *rest))
    export_run.export(line_run, tiny.mixture(), str(tmp_path / "a.safetensors"), _request())
    import_run.import_weights(str(tmp_path / "a.safetensors"), str(tmp_path / "run"))
    assert access.open(str(tmp_path / "run")).config.log.wandb == "" and config.log.wandb == "mine"


def _request(calls=None, **changes) -> sample_run.Request:
    return sample_run.Request(calls, num_samples=COUNT, method=None, seed=5)._replace(**changes)


# FILE OUT FILE OUT ...: samples each file.
ALONE = """
import sys
for name in ("sgflow_jax", "flax", "optax", "orbax", "ml_collections", "absl", "clu", "safetensors"):
    sys.modules[name] = None  # importing it fails
import jax, numpy as np
from jax import export
jax.config.update("jax_platforms", "cpu")
for file, out in zip(sys.argv[1::2], sys.argv[2::2]):
    sampler = export.deserialize(open(file, "rb").read())
    examples = sampler.call(np.int32(5), np.arange(20, dtype=np.int32))
    np.save(out, examples)
"""


@pytest.fixture
def shaken(monkeypatch):
    """Runs whose networks are far from their first parameters, with which samples hardly differ from noise."""
    opened = access.open

    def open_and_shake(*args):
        found, rng = opened(*args), np.random.default_rng(0)
        shake = lambda a: (a + 0.3 * rng.standard_normal(a.shape)).astype(a.dtype)  # noqa: E731
        return dataclasses.replace(found, params=jax.tree.map(shake, found.params))

    monkeypatch.setattr(access, "open", open_and_shake)
    monkeypatch.setattr(figures, "point_panels", lambda *_: np.zeros((1, 1, 3), np.uint8))


@pytest.fixture
def one_device(monkeypatch):
    """One of the four devices, as a part of a batch is rounded otherwise than the whole."""
    one = jax.make_mesh((1, 1), sharding.AXES, (AxisType.Auto,) * 2, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "mesh", lambda: one)


def test_a_sampler_runs_alone_and_makes_the_same_examples(line_run, labelled_run, shaken, one_device, tmp_path):
    """Bit for bit those of --mode=sample for the same seed and number."""
    guided = _request((4,), label="3,7,5", guidance=Guidance(2.0, 0.2, 0.8))
    cases = {
        "points": (line_run, tiny.mixture(), _request((4,))),
        "images": (labelled_run, tiny.labelled(), guided),
    }
    arguments = []
    for name, (workdir, config, request) in cases.items():
        export_run.export(workdir, config, str(tmp_path / f"{name}.stablehlo"), request)
        arguments += [tmp_path / f"{name}.stablehlo", tmp_path / f"{name}.npy"]
    command = [sys.executable, "-I", "-c", ALONE, *arguments]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)
    for name, (workdir, config, request) in cases.items():
        sample_run.sample(workdir, config, str(tmp_path / f"{name}.npz"), request)
        with np.load(tmp_path / f"{name}.npz") as made:
            expected = made["steps_4"]
        found = np.load(tmp_path / f"{name}.npy")
        assert found.dtype == expected.dtype and expected.std() > 0.5
        np.testing.assert_array_equal(found, expected)


def test_what_cannot_be_exported(line_run, tmp_path, monkeypatch):
    config = tiny.mixture()
    cases = [
        ("a.npz", _request(), "ends in .safetensors .parameters. or .stablehlo"),
        ("none/a.safetensors", _request(), "directory that exists"),
        ("a.stablehlo", _request(), "--steps is missing: give one number"),
        ("a.stablehlo", _request((1, 2)), "--steps is missing: give one number"),
        ("a.stablehlo", _request((2,), label="3"), "--label=3"),
        ("a.stablehlo", _request((2,)), "bytes of parameters"),
    ]
    monkeypatch.setattr(program, "MAX_BYTES", 1000)
    for name, request, match in cases:
        with pytest.raises(InputError, match=match):
            export_run.export(line_run, config, str(tmp_path / name), request)
    assert not list(tmp_path.iterdir())


def test_an_own_file_has_its_own_configuration(line_run, tmp_path):
    file = str(tmp_path / "a.safetensors")
    export_run.export(line_run, tiny.mixture(), file, _request())
    for options in ({"config": tiny.mixture()}, {"average": "net_ema1"}):
        with pytest.raises(InputError, match="leave out --config and --average"):
            import_run.import_weights(file, str(tmp_path / "run"), **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.md", "a.safetensors"]


IMAGES = dict(channels=4, channel_mult=(1, 2), num_blocks=1, attention_sizes=(4,), num_classes=3)


@pytest.mark.parametrize(
    "name, options, shape",
    [
        ("mlp", dict(width=4, num_classes=3), (2,)),
        ("unet", IMAGES, (8, 8, 1)),
        ("song_unet", dict(augment_dim=6, **IMAGES), (8, 8, 1)),
        ("song_unet", dict(preconditioning="edm", **IMAGES), (8, 8, 1)),
    ],
)
def test_every_network_takes_any_number_of_examples(name, options, shape):
    model = models.make(**{**fields.network(name).to_dict(), **options})
    (n,) = export.symbolic_shape("n")
    t, label = jax.ShapeDtypeStruct((n,), np.float32), jax.ShapeDtypeStruct((n,), np.int32)
    x = jax.ShapeDtypeStruct((n, *shape), np.float32)
    made = jax.eval_shape(lambda t, x, label: model.init_with_output(jax.random.key(0), t, t, x, label)[0], t, x, label)
    assert made.shape == x.shape
