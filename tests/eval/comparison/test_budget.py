"""Budgets, and the runs that they buy."""

import pytest

from configs import cifar8
from eval.comparison import budget, training
from sgflow_jax.config.check import check_config
from sgflow_jax.config.flag import load
from sgflow_jax.interfaces import InputError


def never():
    raise AssertionError("measured without need")


@pytest.mark.parametrize(
    "text, steps",
    [("images:6500", 96), ("steps:100", 96), ("seconds:60", 600), ("flops:2e12", 1000)],
)
def test_a_budget_buys_whole_eighths(text, steps):
    """Batches of 64, 10 steps a second, 2e9 operations a step."""
    speed = (lambda: 10.0) if text.startswith("seconds") else never
    flops = (lambda: 2e9) if text.startswith("flops") else never
    assert budget.parse(text).num_steps(64, speed, flops) == steps


@pytest.mark.parametrize(
    "text", ["", "images", "images:", "images:0", "images:-1", "images:nan", "images:inf", "epochs:3", "images:1e999"]
)
def test_other_budgets_are_refused(text):
    with pytest.raises(InputError, match="use images:AMOUNT"):
        budget.parse(text)


@pytest.mark.parametrize("text", ["images:511", "images:1e30"])
def test_a_budget_must_buy_a_run(text):
    with pytest.raises(InputError, match="buys"):
        budget.parse(text).num_steps(64, never, never)


def test_a_run_is_whole_calls_of_the_device():
    config = cifar8.get_config().unlock()
    config.train.steps_per_dispatch = 10
    assert training.least_steps(config) == 80
    assert budget.parse("steps:250").num_steps(64, never, never, 80) == 240
    with pytest.raises(InputError, match="buys less than 80 steps"):
        budget.parse("steps:79").num_steps(64, never, never, 80)


def test_schedules_are_shares_of_the_budget():
    def base(objective):
        return load(f"configs/cifar8.py:{objective}")

    whole, half = cifar8.get_config("consistency"), training.config_of(base, "consistency", 3, 7_812 // 8 * 8)
    assert half.train.num_steps == 7_808 and half.seed == 3
    assert half.optim.warmup_steps == round(whole.optim.warmup_steps * 7_808 / 15_624)
    assert half.objective.doubling_steps == round(whole.objective.doubling_steps * 7_808 / 15_624)
    assert half.train.checkpoint_every == half.train.keep_every == 976
    check_config(half)

    # A length may not become 0, which turns a schedule off.
    assert training.config_of(base, "sgflow(correction_steps=900)", 0, 8).objective.correction_steps == 1
    assert training.config_of(base, "sgflow", 0, 8).objective.correction_steps == 0

    # What a variant says is in steps of the file too; what is no length stays.
    own = training.config_of(base, "sgflow(correction_steps=15624,correction=0.5)", 0, 80)
    assert own.objective.correction_steps == 80 and own.objective.correction == 0.5
    assert own.objective.ramp_steps == round(3_000 * 80 / 15_624)
    assert own.optim.learning_rate == whole.optim.learning_rate


def test_cifar8_has_the_size_it_promises():
    import jax

    from sgflow_jax import build, data

    config = cifar8.get_config()
    assert data.shape(config.data) == (8, 8, 3)
    params = jax.eval_shape(lambda key: build.train_step(config).init(key, (8, 8, 3)).params, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 384_027
    assert config.train.num_steps * config.data.batch_size == pytest.approx(1e6, rel=1e-3)
