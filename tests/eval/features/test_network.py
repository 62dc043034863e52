import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.features import network
from eval.features.network import Network
from sgflow_jax.interfaces import InputError
from tests.commands import ROOT

KERNEL = np.random.default_rng(0).standard_normal((3, 3, 3, 5)).astype(np.float32)


def filtered(params, images):
    """A small network: one convolution and a mean. [b, H, W, 3] -> [b, 5]."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(images / 255, params, (1, 1), "SAME", dimension_numbers=dimensions)
    return jax.nn.relu(h).mean(axis=(1, 2))


def some_images(number, channels=3):
    return np.random.default_rng(1).integers(0, 256, (number, 6, 7, channels), dtype=np.uint8)


def test_four_devices_equal_one_for_any_number_of_images():
    assert jax.device_count() == 4
    expected = np.asarray(filtered(jnp.asarray(KERNEL), jnp.asarray(some_images(21))))
    for number in (1, 2, 5, 8, 9, 21):
        features = Network(filtered, KERNEL, batch_size=6)(some_images(21)[:number])
        assert features.dtype == np.float32 and features.shape == (number, 5)
        np.testing.assert_allclose(features, expected[:number], rtol=1e-5, atol=1e-6)


def test_batches_have_one_shape_full_precision_and_a_part_on_each_device(monkeypatch):
    traced, shares = [], []

    def apply(params, images):
        traced.append((images.shape, jax.config.jax_default_matmul_precision))
        return filtered(params, images)

    def fetch_ahead(dispatched):
        for made in dispatched:
            shares.append([shard.data.shape for shard in made.addressable_shards])
            yield np.asarray(made)

    monkeypatch.setattr(network.fetch, "fetch_ahead", fetch_ahead)
    net = Network(apply, KERNEL, batch_size=2)  # on each of 4 devices
    net(some_images(21))
    net(some_images(10))
    assert traced == [((8, 6, 7, 3), "highest")]
    assert shares == [[(2, 5)] * 4] * 5


def test_grey_images_are_repeated_to_three_channels():
    net = Network(filtered, KERNEL, batch_size=4)
    grey = some_images(5, channels=1)
    np.testing.assert_array_equal(net(grey), net(grey.repeat(3, axis=-1)))


@pytest.mark.parametrize(
    "images",
    [
        some_images(0),
        some_images(2, channels=2),
        some_images(2)[0],
        some_images(2).astype(np.float32),
        np.zeros((2, 0, 6, 3), np.uint8),
    ],
    ids=["none", "two channels", "no batch", "float", "no pixels"],
)
def test_rejects_arrays_that_are_not_images(images):
    with pytest.raises(InputError, match="use uint8 images"):
        Network(filtered, KERNEL, batch_size=4)(images)


WORKER = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{sys.argv[1]}", num_processes=2, process_id=int(sys.argv[2]))
from tests.eval.features import test_network as this
this.Network(this.filtered, this.KERNEL, batch_size=6)(this.some_images(11)).tofile(sys.argv[3] + sys.argv[2])
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", WORKER, port]
    piped = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    workers = [subprocess.Popen([*command, str(i), str(tmp_path / "made")], **piped) for i in range(2)]
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, out
    one = Network(filtered, KERNEL, batch_size=6)(some_images(11))
    for i in range(2):
        made = np.fromfile(tmp_path / f"made{i}", np.float32).reshape(one.shape)
        np.testing.assert_allclose(made, one, rtol=1e-5, atol=1e-6)
