import importlib
from pathlib import Path

import pytest

from sgflow_jax import build, objectives
from sgflow_jax.config import automatic, flag
from sgflow_jax.config.check import check_config
from sgflow_jax.interfaces import InputError

RECIPES = Path("docs/recipes.md").read_text()
NAMES = ["cifar10", "imagenet32", "imagenet64", "mixture1d", "quickstart", "toy2d"]


def _module(name):
    return importlib.import_module(f"configs.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_valid_with_every_objective(name):
    for objective in objectives.names():
        config = _module(name).get_config(objective)
        check_config(config)
        assert config.is_locked and config.objective.name == objective
    with pytest.raises(AttributeError):
        config.train.nosteps = 1
    with pytest.raises(TypeError):
        config.train.num_steps = "many"
    with pytest.raises(InputError, match="'nope'"):
        _module(name).get_config("nope")


def test_an_objectives_options_come_from_its_dataclass():
    config = _module("mixture1d").get_config("sgflow")
    assert set(config.objective) == {"name", *objectives.default_options("sgflow")}
    config.objective.estimator, config.objective.warmup_steps = "split", 7
    objective = build.objective(config)
    assert (objective.estimator, objective.warmup_steps) == ("split", 7)


def test_a_preset_is_an_objective_with_other_options():
    paper, recommended = (_module("cifar8").get_config(name) for name in ("sgflow", "sgflow_recommended"))
    check_config(recommended)
    assert (paper.objective.velocity_target, paper.objective.correction) == ("pair", 1.0)
    assert recommended.objective.name == "sgflow" and "sgflow_recommended" not in objectives.names()
    with recommended.unlocked():
        recommended.objective.update(velocity_target="pair", correction=1.0)
    assert recommended == paper


def test_the_papers_task():
    config = _module("cifar10").get_config()
    assert (config.train.num_steps, config.model.channels, config.model.channel_mult) == (200_000, 128, (1, 2, 2))
    assert config.objective.name == "sgflow" and config.objective.prob_diagonal == 0.5 and config.data.flip
    assert config.model.attention_sizes == (16,) and config.model.time_scale == 10


def test_published_recipes_are_valid():
    files = sorted(Path("configs/published").glob("[!_]*.py"))
    assert len(files) == 8
    for file in files:
        config, _ = automatic.resolved(flag.load(str(file)))
        check_config(config)
        assert config.model.precision == "highest"  # float32, as published
        # Each is in the table of the documents with its number of images.
        images = config.train.num_steps * config.data.batch_size
        assert f"| `{file.name}` | " in RECIPES and f"| {images / 1e6:.0f}M | " in RECIPES
