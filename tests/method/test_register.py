"""Objectives from outside the package, known by a name of their own."""

import pytest

from configs import mixture1d
from eval.exact import audit, controls
from sgflow_jax import build, objectives
from sgflow_jax.interfaces import InputError


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(objectives, "_OBJECTIVES", dict(objectives._OBJECTIVES))


def test_a_registered_objective_is_one_like_any_other():
    objectives.register("mine", controls.KeepsNoise)
    config = mixture1d.get_config("mine")
    config.objective.noise = 1.0
    expected = controls.KeepsNoise(warmup_steps=150, ramp_steps=150, noise=1.0)
    assert build.objective(config) == expected and audit.make("mine(noise=1)") == controls.KeepsNoise(noise=1.0)
    assert objectives.names()[-1] == "mine"

    objectives.register("mine", controls.WrongSign)  # the cell of a notebook, run again
    assert isinstance(objectives.make("mine"), controls.WrongSign)


@pytest.mark.parametrize(
    "name, objective",
    [("sgflow", controls.KeepsNoise), ("my own", controls.KeepsNoise), ("mine", controls.KeepsNoise()), ("mine", dict)],
)
def test_a_bad_name_or_class_is_rejected(name, objective):
    before = objectives.names()
    with pytest.raises(InputError, match=": .*use|: derive"):
        objectives.register(name, objective)
    assert objectives.names() == before
