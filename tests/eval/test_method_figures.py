"""The figures of docs/method.md: what they say is right, and their command trains what it names."""

import re

import numpy as np
import pytest

from configs import mixture1d
from eval import method_figures
from eval.exact import line, method_plots
from sgflow_jax import objectives


def test_errors_of_maps_that_are_known():
    exact = np.linspace(-1, 1, 5)
    found = line.errors({"exact": exact, "shifted": exact + 0.5, "mirrored": -exact})
    assert found["shifted"] == pytest.approx((0.5, 0.5))
    assert found["mirrored"] == pytest.approx((np.sqrt(2), 0.0))  # another map with the same samples


def test_every_objective_is_named_below_one_equation():
    names = [name for *_, below in method_plots.EQUATIONS for name in re.findall(r"[a-z_]+", below)]
    found = sorted(name for name in names if name in objectives.names())
    assert found == sorted(set(objectives.names()) - {"flow_matching"})


@pytest.mark.slow
def test_the_uncorrected_loss_learns_a_flatter_map(monkeypatch):
    whole = mixture1d.get_config

    def small(objective):
        config = whole(objective)
        config.data.batch_size, config.model.width = 128, 32
        config.objective.warmup_steps = config.objective.ramp_steps = config.optim.warmup_steps = 20
        return config

    monkeypatch.setattr(mixture1d, "get_config", small)
    x, maps = line.maps(method_figures.train(num_steps=300, seed=0))
    assert np.std(maps["uncorrected"]) < 0.75 * np.std(maps["sgflow"])
    found = line.errors(maps)
    assert found["sgflow"][0] < found["uncorrected"][0]
    for figure in (method_plots.paths(), method_plots.equations(), method_plots.correction(x, maps, found)):
        assert figure.startswith(b"\x89PNG")
