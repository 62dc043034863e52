"""Augmentation inside the training step: who is told, what stays as it was, and what it needs."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import build, sample_run, train_step, trainer
from sgflow_jax.config import fields
from sgflow_jax.config.check import check_config
from sgflow_jax.interfaces import InputError, LossOut
from sgflow_jax.models import BoundNet
from sgflow_jax.objectives.flow_matching import FlowMatching
from tests import tiny

KEY = jax.random.key(1)
BATCH = {
    "x": np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8),
    "label": np.zeros(16, np.int32),
}


def _config(objective="flow_matching", augment=0.12):
    config = tiny.digits(objective)
    config.model = fields.song_unet()
    small = dict(channels=8, channel_mult=(1,), num_blocks=1, attention_sizes=(), augment_dim=6)
    config.model.update(small)
    config.data.augment = augment
    return config


@functools.cache
def _step(augment=0.3, **options):
    config = _config(augment=augment)
    config.objective.update(options)
    return build.train_step(config)


def _examples(step, key=KEY):
    return jax.jit(lambda: step._examples(BATCH, key, 0))()


def test_nothing_else_of_a_batch_changes():
    plain, told = _examples(_step(0.0)), _examples(_step())
    assert plain.augment is None and told.augment.shape == (16, 6)
    np.testing.assert_array_equal(told.drawn.t, plain.drawn.t)
    np.testing.assert_array_equal(*(jax.random.key_data(each.dropout_keys) for each in (told, plain)))
    untouched = np.all(told.augment == 0, axis=1)
    assert 1 < np.sum(untouched) < 15
    own = jax.random.key_data(jax.random.fold_in(KEY, train_step._AUGMENT))
    assert not np.any(np.all(jax.random.key_data(jax.random.split(KEY, 4)) == own[None], axis=1))
    same = [np.array_equal(a, b) for a, b in zip(told.drawn.x_t, plain.drawn.x_t, strict=True)]
    np.testing.assert_array_equal(same, untouched)


def test_network_and_teacher_are_told_in_any_part_of_a_batch():
    told = _examples(_step(), jax.random.fold_in(KEY, 0))

    class Output(FlowMatching):
        def unguided_loss(self, net, drawn, teacher):
            half = net.restrict(lambda a: a[::2])
            assert net.augment.shape == (len(drawn.t), 6) and half.augment.shape == (len(drawn.t) // 2, 6)
            return LossOut(drawn.t * jnp.sum(net.augment, axis=1) + jnp.sum(teacher.augment, axis=1), {})

    step = dataclasses.replace(_step(), objective=Output(), microbatches=4)
    rest = SimpleNamespace(step=0, skipped=0), BATCH, KEY, BoundNet(step.model, {})
    (loss, _), _ = jax.jit(lambda: step.gradient({}, *rest))()
    np.testing.assert_allclose(64 * loss, np.mean((told.drawn.t + 1) * np.sum(told.augment, axis=1)), rtol=1e-5)


def test_images_of_another_label_are_of_another_distribution():
    """The mean over the batch given x_t is over images with the same label."""
    mean, pair = (_examples(_step(velocity_target=target)) for target in ("batch", "pair"))
    alike = np.sum(np.all(mean.augment[:, None] == mean.augment[None], axis=-1), axis=1)
    changed = np.abs(mean.drawn.dx_t - pair.drawn.dx_t).max(axis=(1, 2, 3))
    assert np.all(changed[alike == 1] < 1e-3) and np.sum(alike == 1) > 3
    assert np.any(changed[alike > 1] > 1e-3)


def test_what_augmentation_needs(digits_run):
    config = _config()
    check_config(config)
    config.data.flip = True
    with pytest.raises(InputError, match="data.flip is True: use false, as data.augment mirrors half"):
        check_config(config)
    config.data.flip, config.model.augment_dim = False, 7
    with pytest.raises(InputError, match="augment is 0.12: use 0, or a song_unet with model.augment_dim 6 or 9"):
        check_config(config)
    config = _config("mean_flow")
    config.teacher.workdir = digits_run
    with pytest.raises(InputError, match="whose model.augment_dim is 0, not 6, so it does not know data.augment"):
        build.teacher(config, build.mesh(config))


@pytest.mark.slow
def test_a_run_with_augmentation_trains_and_is_sampled(tmp_path):
    config = _config("mean_flow")
    trainer.train(config, str(tmp_path / "run"))
    request = sample_run.Request((1,), 8, None, seed=0)
    told, *_ = sample_run.sample(str(tmp_path / "run"), config, str(tmp_path / "x.npz"), request)
    assert "mean_flow, step 2, averaged parameters" in told
