"""Fields that follow from the data."""

import numpy as np
import pytest

from configs import images, quickstart
from sgflow_jax import objectives
from sgflow_jax.config import automatic
from sgflow_jax.config.check import check_config
from sgflow_jax.interfaces import InputError
from sgflow_jax.models import levels


@pytest.mark.parametrize(
    "size, widths, attention",
    [
        (6, (1, 2), (3,)),
        (8, (1, 2), (4,)),
        (16, (1, 2), (8,)),
        (24, (1, 2, 2), (12, 6)),
        (26, (1, 2), (13,)),
        (28, (1, 2, 2), (14, 7)),
        (32, (1, 2, 2), (16, 8)),
        (64, (1, 2, 2, 3), (16, 8)),
        (512, (1, 2, 2, 3, 4, 4, 4), (16, 8)),
    ],
)
def test_levels_follow_from_the_size(size, widths, attention):
    assert levels.channel_mult(size) == widths
    assert levels.attention_sizes(size, len(widths)) == attention


@pytest.mark.parametrize(
    "size, near", [(50, "48 or 52"), (7, "6 or 8"), (1, "2"), (34, "32 or 36"), (100, "96 or 104"), (33, "32 or 36")]
)
def test_a_size_that_cannot_be_halved_is_refused_with_the_nearest(size, near):
    with pytest.raises(InputError, match=f"config.data.size is {size}, which cannot be halved .*: use {near}, or set"):
        levels.channel_mult(size)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """configs/images.py on a file of two classes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(256, size=(8, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "two.npz", images=pixels, labels=np.arange(8) % 2)
    np.savez(tmp_path / "none.npz", images=pixels)
    config = images.get_config()
    config.data.dir, config.data.size = str(tmp_path / "two.npz"), 16
    return config


def test_what_is_automatic_is_chosen_and_said(config):
    whole, chosen = automatic.resolved(config)
    expected = {"model.num_classes": 2, "model.channel_mult": (1, 2), "model.attention_sizes": (8,)}
    assert chosen == expected and whole.model.num_classes == 2 and whole.model.channel_mult == (1, 2)
    assert config.model.num_classes == -1 and whole.model.label_dropout == 0.1 and whole.is_locked
    check_config(whole)
    assert automatic.resolved(whole) == (whole, {})


def test_values_of_the_user_stay(config):
    config.model.channel_mult, config.model.num_classes, config.model.label_dropout = (1, 1, 1), 0, 0.0
    whole, chosen = automatic.resolved(config)
    assert chosen == {"model.attention_sizes": (8, 4)} and whole.model.channel_mult == (1, 1, 1)
    config.model.attention_sizes = ()
    assert automatic.resolved(config) == (config, {})
    config.model.num_classes = 3
    with pytest.raises(InputError, match="num_classes is 3: use 0 .no labels. or 2, the classes of images"):
        check_config(config)


def test_without_classes_there_is_no_null_class(config):
    config.data.dir = config.data.dir.replace("two", "none")
    whole, chosen = automatic.resolved(config)
    assert (chosen["model.num_classes"], chosen["model.label_dropout"]) == (0, 0.0)
    check_config(whole)
    config.model.num_classes = 0
    with pytest.raises(InputError, match="label_dropout is 0.1: use .* 0 without labels"):
        check_config(automatic.resolved(config)[0])


def test_other_networks_take_the_classes_too():
    config = quickstart.get_config()
    config.model.num_classes = -1
    whole, chosen = automatic.resolved(config)
    assert chosen == {"model.num_classes": 10} and whole.model.channel_mult == (1, 2)


def test_a_saved_configuration_gives_its_values_without_the_data(config, tmp_path):
    whole, _ = automatic.resolved(config)
    saved = {**whole.to_dict(), "model": {**whole.model.to_dict(), "channel_mult": [1, 2], "label_dropout": 0.0}}
    config.data.dir = str(tmp_path / "gone")
    found = automatic.as_saved(config, saved)
    assert found.model.channel_mult == (1, 2) and found.model.num_classes == 2 and found.model.label_dropout == 0.0
    config.model.num_classes = 2
    assert automatic.as_saved(config, saved).model.label_dropout == 0.1


def test_the_config_for_images_is_valid_with_every_objective(config):
    for objective in objectives.names():
        given = images.get_config(objective)
        given.data.dir, given.data.size = config.data.dir, config.data.size
        check_config(automatic.resolved(given)[0])
        assert given.is_locked
