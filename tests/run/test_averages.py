"""Several averages of the parameters: what they are, how they are stored, and who reads them."""

import shutil

import jax
import numpy as np
import pytest

from eval import fid_sweep
from sgflow_jax import beginning, build, sample_run, trainer
from sgflow_jax.interfaces import InputError, Stream, stream_key
from sgflow_jax.preparation import prepare
from sgflow_jax.run import access, integrity, layout
from tests import tiny

STEPS = 4
DECAYS = {"ema": 0.9, "ema_0.5": 0.5, "ema_0": 0.0}


def _config(num_steps: int = STEPS):
    config = tiny.mixture("flow_matching", num_steps)
    config.train.checkpoint_every, config.train.keep_checkpoints = 1, STEPS
    config.optim.ema_decay, config.optim.more_ema_decays = DECAYS["ema"], (0.5, 0.0)
    config.optim.ema_warmup = "none"
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("averages")
    trainer.train(_config(), str(folder))
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return str(shutil.copytree(trained, tmp_path / "run"))


def _params(workdir, step, name):
    return jax.tree.leaves(access.open(str(workdir), step, name).params)


def test_each_average_is_its_own_sum_over_the_steps(trained):
    """Recomputed in float64 from the parameters of every step."""
    first = jax.jit(build.train_step(_config()).init, static_argnums=1)(stream_key(0, Stream.PARAMETERS), (1,)).params
    raw = [jax.tree.leaves(first), *(_params(trained, step, "raw") for step in range(1, STEPS + 1))]
    for name, decay in DECAYS.items():
        average = [np.float64(array) for array in raw[0]]
        for params in raw[1:]:
            average = [decay * a + (1 - decay) * np.float64(p) for a, p in zip(average, params, strict=True)]
        for found, expected in zip(_params(trained, STEPS, name), average, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_run_continues_with_all_its_averages(run):
    trainer.train(_config(STEPS + 1), run)
    for a, b, new in zip(*(_params(run, *at) for at in ((4, "ema_0.5"), (5, "ema_0.5"), (5, "raw"))), strict=True):
        np.testing.assert_allclose(b, (a + new) / 2, rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match=r"optim.more_ema_decays \(there \[0.5, 0.0\], here \[\]\)"):
        config = _config(STEPS + 2)
        config.optim.more_ema_decays = ()
        trainer.train(config, run)


def test_samples_name_their_average(run):
    request = sample_run.Request((1,), 8, None, seed=0, parameters="ema_0.5")
    told, *_ = sample_run.sample(run, _config(), f"{run}/x.npz", request)
    assert "step 4, ema_0.5 parameters," in told


@pytest.mark.slow
def test_each_average_has_rows_of_its_own(run):
    request = fid_sweep.Request((1,), 60)
    rows = [fid_sweep.sweep([run], request._replace(parameters=name))[run][0].identity for name in DECAYS]
    assert [row.parameters for row in rows] == list(DECAYS) and len({row.network for row in rows}) == 3


def test_an_average_that_the_run_lacks_is_named_with_those_it_has(run, line_run):
    for workdir, has in ((run, "ema, raw, ema_0.5, ema_0$"), (line_run, "ema, raw$")):
        with pytest.raises(InputError, match=f"has no parameters 'ema_0.7': use one of {has}"):
            access.open(workdir, parameters="ema_0.7")


def test_one_average_is_stored_as_before_there_could_be_more(line_run):
    saved = integrity._arrays(layout.checkpoints(line_run) / "6" / "state")
    assert set(saved) == {"step", "params", "opt_state", "average", "rollbacks", "skipped"}


def test_another_run_s_checkpoint_begins_all_averages_or_must_have_the_same(line_run, tmp_path):
    config = _config(8)
    config.objective = tiny.mixture().objective
    config.train.fork_from = line_run
    with pytest.raises(InputError, match="a run of another optimiser: more_averages.* use the optim fields"):
        prepare(config, str(tmp_path))
    config.train.fork_from, config.train.init_from = "", line_run
    prepared = prepare(config, str(tmp_path))
    fresh = build.first_state(config, prepared.step_fn, prepared.like)
    state = beginning.first_state(prepared.begins_with, fresh, prepared.like)
    for average in (state.average, *state.more_averages.values()):
        jax.tree.map(np.testing.assert_array_equal, average, access.open(line_run).params)
