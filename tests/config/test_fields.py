"""Fields, each alone and together: which values are accepted, and which may change when a run is continued."""

import pytest

from sgflow_jax.config import fields
from sgflow_jax.config.check import check_config, check_fields
from sgflow_jax.interfaces import InputError
from tests import tiny

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    "name, good, bad, allowed",
    [
        ("seed", (0, 2**31 - 1), (-1, 2**31, 1.0, True, "1"), "an integer from 0 to 2147483647"),
        ("train.keep_every", (-1, 0, 5), (-2,), "an integer from -1 to 2147483647"),
        ("eval.num_samples", (2, 10_000_000), (1, 10_000_001), "an integer from 2 to 10000000"),
        ("model.depth", (1,), (2**40, 1.5), "an integer of at most 2147483647"),
        ("optim.learning_rate", (1, 1e-9), (0.0, INF, NAN, True, "1"), "a number > 0"),
        ("train.max_rollbacks", (0, 3), (-1, 0.5), "an integer from 0 to 2147483647"),
        ("optim.b1", (0.0, 0.999), (-0.1, 1.0, 1), "a number >= 0 and < 1"),
        ("train.rollback_factor", (0.5, 1.0), (0.0, 1.1), "a number > 0 and <= 1"),
        ("train.divergence_factor", (0.0, 0, 1.5), (0.5, 1.0, -1.0, INF), "0 or a number > 1"),
        ("optim.more_ema_decays", ((), (0.9, 0), [0.5]), ((1.0,), (-0.1,), (NAN,), 0.9), "numbers >= 0 and < 1"),
        ("optim.ema_half_life", (0.0, 5e5), (-1.0, INF), "0 or a number > 0"),
        ("objective.logit_mean", (-3.0, 2), (NAN, INF, "x"), "a finite number"),
        ("train.on_divergence", ("stop", "rollback"), ("retry", 0), "one of stop, rollback"),
        ("data.flip", (True, False), (1, "true"), "true or false"),
        ("data.name", (None, "digits"), (3,), "text"),
        ("eval.steps", ((), (1, 4), [1]), ((1, True), (1.5,), ("1",), 1, (2**40,)), "integers like (1,2,2)"),
    ],
)
def test_a_field_accepts_its_type_and_range(name, good, bad, allowed):
    field = fields.complete("sgflow", "mlp")[name]
    assert all(field.accepts(value) for value in good)
    assert not any(field.accepts(value) for value in bad)
    assert field.allowed == allowed


def test_every_default_is_accepted_and_every_field_is_explained():
    for objective, network in (("sgflow", "unet"), ("sgflow", "song_unet"), ("ctm", "mlp")):
        assert all(field.accepts(field.default) for field in fields.complete(objective, network).values())
    assert all(len(field.text.split()) > 1 for field in fields.FIELDS.values())


def test_names_are_those_of_the_fields():
    config = tiny.mixture()
    check_fields(config)
    with config.unlocked():
        config.train.num_step = 3
    with pytest.raises(InputError, match="unknown field config.train.num_step: a config file may change fields"):
        check_fields(config)
    with config.unlocked():
        del config.train.num_step, config.optim
    with pytest.raises(InputError, match="config.optim.b1 is missing: start from sgflow_jax.config.fields.get_config"):
        check_fields(config)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"optim.clip_norm": -1.0}, "config.optim.clip_norm is -1.0: use 0 or a number > 0"),
        ({"data.augment": 0.1}, "augment is 0.1: use 0, or a song_unet with model.augment_dim 6 or 9"),
        ({"train.log_every": 3}, "train.num_steps is 8: use a multiple of train.steps_per_dispatch = 3"),
        ({"eval.features": "classifier"}, "eval.features is 'classifier': use one of pixels for mixture1d"),
        ({"model.num_classes": 2}, "model.num_classes is 2: use 0, as mixture1d has no labels"),
        ({"model.time_scale": 0.0}, "model.time_scale is 0.0: use a number > 0"),
        ({"teacher.step": 3}, "teacher.step is 3: use 0, or give teacher.workdir"),
        ({"teacher.network": "x"}, "teacher.network is 'x': use '', or give teacher.workdir"),
        ({"train.microbatches": 3}, "batch_size is 16, not divisible by .* x 3 of config.train.microbatches"),
        ({"mesh.data": 3}, "mesh.data is 3 and .* whose product is 4"),
        ({"mesh.fsdp": 0}, "mesh.fsdp is 0: use positive integers, or -1"),
        ({"objective.tangents": "two"}, "tangents of SGFlow is 'two': use one of linearize, vmap"),
        ({"objective.weight": "adaptive"}, "'adaptive': use one of none, residual"),
    ],
)
def test_fields_that_do_not_go_together(change, match):
    config = tiny.mixture(num_steps=8)
    config.update_from_flattened_dict(change)
    if "train.log_every" in change:
        config.train.steps_per_dispatch = 3
    with pytest.raises(InputError, match=match) as error:
        check_config(config)
    assert "\n" not in str(error.value)


def test_options_of_the_unet_and_the_classifier_on_images():
    config = tiny.digits()
    config.model.remat = "all"
    with pytest.raises(InputError, match="model.remat is 'all': use one of none, elementwise, block"):
        check_config(config)
    config.model.remat, config.eval.features = "block", "classifier"
    check_config(config)


@pytest.mark.parametrize(
    "name, given, saved, may",
    [
        ("train.microbatches", 2, 1, True),
        ("model.remat", "block", "none", True),
        ("objective.tangents", "vmap", "linearize", True),
        ("optim.b1", 0.8, 0.9, False),
        ("optim.b1", 0.9, 0.9, True),
        ("model.width", 9, 8, False),
        ("teacher.workdir", "b", "a", True),
        ("teacher.workdir", "", "a", False),
        ("teacher.workdir", "b", "", False),
        ("teacher.step", 0, 7, True),
        ("teacher.step", 5, 7, False),
        ("teacher.network", "", "x", True),
        ("teacher.network", "y", "x", False),
        ("train.keep_every", -1, 100, True),
        ("train.keep_every", 200, 100, True),
        ("train.keep_every", 150, 100, False),
        ("train.keep_every", 100, 0, False),
        ("train.fork_from", "", "a@3", True),
        ("train.fork_from", "a", "a@3", True),
        ("train.fork_from", "b", "a@3", False),
        ("train.init_from", "a", "a@3", True),
        ("train.init_from", "b", "a@3", False),
    ],
)
def test_what_may_change_when_a_run_is_continued(name, given, saved, may):
    assert fields.may_continue(name, {name: given}, {name: saved}) == may


def test_a_field_that_is_absent_on_one_side_differs_unless_it_may_change():
    assert not fields.may_continue("teacher.step", {"teacher.step": 0}, {})
    assert not fields.may_continue("gone", {}, {"gone": 1})
    assert fields.may_continue("train.log_every", {"train.log_every": 1}, {})
