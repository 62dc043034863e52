"""What a step trains or uses besides the network's parameters: a learned weight of the loss, and their average."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import build, data, trainer
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access
from sgflow_jax.run.checkpoint import Checkpoints
from tests import tiny

KEY = jax.random.key(1)


def _setup(name, **options):
    """(step, three batches, state, learning rate) on the line."""
    config = tiny.mixture(name)
    config.objective.update(options)
    step, source = build.train_step(config), build.source(config)
    batches = [source.batch(0, i, config.data.batch_size, slice(None)) for i in range(3)]
    state = jax.jit(step.init, static_argnums=1)(jax.random.key(0), data.shape(config.data))
    return step, batches, state, build.learning_rate(config)


def _gradient(step, state, batch):
    """((loss, seen), gradient) at the state."""
    return jax.jit(step.gradient)(state.trained, state, batch, KEY)


def _close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)


def test_a_learned_weight_is_trained_like_the_network_and_averaged_with_nothing():
    """At the start w = 0, the loss is that without a weight, and its slope along the bias of w is 1 - loss."""
    step, batches, state, learning_rate = _setup("lsd", weight="learned")
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.loss_weight))
    assert jax.tree.structure(state.average) == jax.tree.structure(state.params)

    after, monitor = jax.jit(step)(state, step.init_monitor(batches[0], state), batches[0], KEY)
    found = monitor.averages.compute()
    np.testing.assert_allclose(found["loss"], (found["diagonal_loss"] + found["off_diagonal_loss"]) / 2, rtol=1e-5)
    # Adam's first step has the size of the learning rate. The norm that is clipped is of both gradients.
    slope = 1 - found["loss"]
    np.testing.assert_allclose(after.loss_weight["out"]["bias"], -learning_rate(0) * np.sign(slope), rtol=1e-3)
    assert found["grad_norm"] > abs(slope) > 0.1


def test_targets_are_made_with_the_average_of_the_parameters():
    plain, batches, state, _ = _setup("psd")
    step, *_ = _setup("psd", target="average")
    other = state.replace(average=jax.tree.map(lambda p: p + 0.3, state.params))

    _close(_gradient(step, state, batches[0]), _gradient(plain, other, batches[0]))
    changed, unchanged = (_gradient(each, other, batches[0])[1] for each in (step, plain))
    assert max(np.max(np.abs(a - b)) for a, b in zip(*map(jax.tree.leaves, (changed, unchanged)), strict=True)) > 1e-3


@pytest.mark.slow
def test_a_run_with_a_learned_weight_continues_from_its_checkpoint(tmp_path):
    """Its network is read without the weight, and a run without the weight cannot fork from it."""
    config, workdir = tiny.mixture("lsd", num_steps=2), str(tmp_path / "weighed")
    config.objective.weight = "learned"
    config.optim.more_ema_decays = (0.9,)
    trainer.train(config, workdir)
    config.train.num_steps = 4
    trainer.train(config, workdir)

    like = build.state_like(config, build.train_step(config), build.mesh(config))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        weights = [checkpoints.state(step, like).loss_weight["out"]["bias"] for step in (2, 4)]
    assert 0 < np.abs(weights[0]) < np.abs(weights[1])

    half = jnp.full(4, 0.5)
    assert build.restore_net(workdir)(half, half, half[:, None]).shape == (4, 1)
    for parameters in ("ema", "ema_0.9"):
        assert set(access.open(workdir, parameters=parameters).params) == {"hidden0", "out"}

    plain = tiny.mixture("lsd", num_steps=6)
    plain.optim.more_ema_decays = (0.9,)
    plain.train.fork_from = f"{workdir}@4"
    with pytest.raises(InputError, match="a run of another network: loss_weight"):
        trainer.train(plain, str(tmp_path / "plain"))
