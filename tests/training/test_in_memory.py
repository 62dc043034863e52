"""Training without a directory is training."""

import jax
import numpy as np
import pytest

from eval.exact import controls
from sgflow_jax import build, in_memory
from sgflow_jax.interfaces import InputError
from tests import tiny


def test_the_network_is_that_of_a_run_with_a_directory(line_run):
    config = tiny.mixture()
    config.train.steps_per_dispatch = 2  # the same steps, in fewer calls
    ours, theirs = in_memory.train(config), build.restore_net(line_run)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours.params, theirs.params)

    other = in_memory.train(config, controls.KeepsNoise())
    assert not np.allclose(*(jax.tree.leaves(net.params)[0] for net in (ours, other)), atol=1e-4)


@pytest.mark.parametrize(
    "section, field, value, fault",
    [
        ("train", "init_from", "run1", "config.train.init_from"),
        ("train", "max_abs_loss", 1e-6, "max_abs_loss at step 1"),
        ("data", "batch_size", 6, "batch_size"),
    ],
)
def test_faults(section, field, value, fault):
    config = tiny.mixture(num_steps=2)
    config[section][field] = value
    with pytest.raises(InputError, match=fault):
        in_memory.train(config)
