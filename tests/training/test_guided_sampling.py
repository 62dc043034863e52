"""Guidance of --mode=sample and from Python: weights, intervals, and what cannot be guided."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgflow_jax import build, cli, generate, run_sampler, sample_run, sampling
from sgflow_jax.guidance import Guidance
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access
from tests import sampled, tiny
from tests.commands import ROOT


@pytest.mark.slow
def test_guided_samples_differ_and_say_so(labelled_run, tmp_path):
    # After two steps of training the classes hardly differ, so the weights are large.
    plain = sampled.labelled(labelled_run, tmp_path / "plain.npz")[1]["steps_2"]
    lines, made = sampled.labelled(labelled_run, tmp_path / "a.npz", guidance=Guidance(3000.0))
    assert ", method euler, guidance 3000, seed 3, " in lines[0]
    lines, part = sampled.labelled(labelled_run, tmp_path / "b.npz", guidance=Guidance(3000.0, 0.25, 1.0))
    assert "guidance 3000 at times 0.25-1, " in lines[0]
    assert np.any(made["steps_2"] != plain) and np.any(part["steps_2"] != made["steps_2"])
    np.testing.assert_array_equal(part["steps_1"], sampled.labelled(labelled_run, tmp_path / "c.npz")[1]["steps_1"])


def _config(objective, **model):
    config = tiny.labelled(objective)
    config.model.update(model)
    return config


def test_guidance_that_a_run_cannot_have_is_rejected(labelled_run, digits_run, tmp_path):
    for config in (_config("sgflow", label_dropout=0.0), tiny.digits()):
        with pytest.raises(InputError, match="--guidance needs a network with a null class: train with labels and mo"):
            run_sampler.make(config, None, "uniform", Guidance(2.0))
        assert run_sampler.make(config, None, "uniform", Guidance()).method == "flow_map"
    with pytest.raises(InputError, match="no velocity to guide"):
        run_sampler.make(_config("consistency"), None, "uniform", Guidance(2.0))
    unlabelled = tiny.digits("flow_matching")
    for changes, match in [({"label": "7"}, "trained without labels"), ({"guidance": Guidance(2.0)}, "null class")]:
        with pytest.raises(InputError, match=match):
            sample_run.sample(digits_run, unlabelled, str(tmp_path / "made.npz"), sampled.REQUEST._replace(**changes))
    with pytest.raises(InputError, match="no class 'seven'"):
        sampled.labelled(labelled_run, tmp_path / "made.npz", label="seven")
    assert not list(tmp_path.iterdir())


def test_remarks_on_guidance():
    def remarks(config, guidance, method=None):
        return run_sampler.remarks(config, run_sampler.make(config, method, "uniform", guidance))

    guided = _config("sgflow")
    guided.objective.guidance = 2.0
    assert remarks(_config("flow_matching"), Guidance(2.0)) == []
    assert remarks(guided, Guidance()) == []
    (heuristic,) = remarks(_config("sgflow"), Guidance(2.0))
    assert "flow_map guidance is a heuristic" in heuristic
    (twice,) = remarks(guided, Guidance(1.5), "heun")
    assert "objective.guidance = 2, " in twice and "multiply to 3" in twice
    assert len(remarks(guided, Guidance(1.5))) == 2


@pytest.mark.parametrize(
    "weight, expected", [(2.0, "2"), (1.1, "1.1"), (0.0, "0"), (-0.5, "-0.5"), (1e-7, "0.0000001")]
)
def test_weights_in_words(weight, expected):
    assert run_sampler.number(weight) == expected
    assert run_sampler.told(weight, "0.2-0.8") == f"guidance {expected} at times 0.2-0.8"
    assert run_sampler.told(1.0, "") == ""
    assert run_sampler.interval(Guidance(2.0, 0.2, 0.75)) == "0.2-0.75" and run_sampler.interval(Guidance(2.0)) == ""


@pytest.mark.parametrize(
    "items", [["0.8", "0.2"], ["0.2"], ["0.2", "1.5"], ["a", "b"], ["nan", "1"], ["0", "0.5", "1"]]
)
def test_a_wrong_interval_is_rejected(items, monkeypatch):
    monkeypatch.setattr(cli.flags, "FLAGS", types.SimpleNamespace(guidance=2.0, guidance_interval=items))
    with pytest.raises(InputError, match="--guidance_interval=.*: use two times, 0 <= START < END <= 1"):
        cli.guidance()


def test_an_interval_needs_guidance(monkeypatch):
    given = types.SimpleNamespace(guidance=1.0, guidance_interval=["0.2", "0.8"])
    monkeypatch.setattr(cli.flags, "FLAGS", given)
    with pytest.raises(InputError, match="--guidance_interval=0.2,0.8 needs --guidance"):
        cli.guidance()
    given.guidance = 2.0
    assert cli.guidance() == Guidance(2.0, 0.2, 0.8)
    given.guidance_interval = None
    assert cli.guidance() == Guidance(2.0)


def test_a_network_is_called_with_labels_and_guided_from_python(labelled_run):
    net = build.restore_net(labelled_run)
    t, x = jnp.full(3, 0.5), jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    label = jnp.array([7, 2, 7])
    own, null = net(t, t, x, label), net(t, t, x, jnp.full(3, 10))
    assert own.shape == x.shape and np.any(own != null)
    guided = Guidance(4.0).of(net.replace(label=label))
    np.testing.assert_allclose(guided(t, t, x), null + 4 * (own - null), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="pass label"):
        net(t, t, x)


def test_the_example_in_the_documents(labelled_run):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(), re.DOTALL)
    assert "runs/mine" in code and "(64, 64, 3)" in code
    wanted = np.array([7, 2, 7], np.int32)
    names = dict(build=build, generate=generate, sampling=sampling, Guidance=Guidance, seed=3, label=jnp.array(wanted))
    names |= dict(objective=build.objective(access.open(labelled_run).config), labels=wanted)
    exec(code.replace("runs/mine", labelled_run).replace("(64, 64, 3)", "(8, 8, 1)"), names)
    assert names["images"].shape == (3, 8, 8, 1)
    assert names["guided"](jnp.full(3, 0.5), jnp.full(3, 0.5), jnp.zeros((3, 8, 8, 1))).shape == (3, 8, 8, 1)
