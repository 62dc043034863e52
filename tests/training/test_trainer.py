"""Whole runs: what they write, that they continue where they were, and what they refuse."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from sgflow_jax import build, trainer
from sgflow_jax.data.source import Stepwise
from sgflow_jax.display import preview
from sgflow_jax.interfaces import InputError
from sgflow_jax.run import access, ownership
from tests import tiny, workdirs
from tests.commands import ROOT


def _rows(workdir):
    return [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_needed_to_use_it(tmp_path):
    config = tiny.digits("sgflow")
    config.train.preview_every = 2
    trainer.train(config, str(tmp_path))

    assert json.loads((tmp_path / "config.json").read_text())["objective"]["name"] == "sgflow"
    (row,) = _rows(tmp_path)
    assert row["step"] == 2 and {"loss", "diagonal_loss", "grad_norm", "learning_rate"} <= set(row)
    assert list((tmp_path / "tensorboard").iterdir())
    with Image.open(tmp_path / "previews" / "step_0000002.png") as preview:
        assert preview.size[1] == 4 * 50 + 2 and preview.size[0] > 16 * 50 + 2  # titles on the left

    opened = access.open(str(tmp_path))
    net = opened.net()
    assert opened.step == 2 and opened.config.to_dict() == config.to_dict()
    x = np.zeros((3, 8, 8, 1), np.float32)
    t = np.zeros(3, np.float32)
    assert net(t, t + 1, x).shape == x.shape


def test_a_run_passes_the_search_for_nan_and_infinity_and_needs_no_picture(tmp_path, monkeypatch):
    """JAX looks at the arguments of a step again, which may not have been given away. A preview may fail in any way."""

    def fail(_):
        raise ZeroDivisionError("in matplotlib")

    monkeypatch.setattr(preview.figures, "by_calls", fail)
    config = tiny.mixture("flow_matching", num_steps=2)
    config.train.preview_every = 2
    try:
        for setting in ("jax_debug_nans", "jax_debug_infs"):
            jax.config.update(setting, True)
        trainer.train(config, str(tmp_path))
    finally:
        for setting in ("jax_debug_nans", "jax_debug_infs"):
            jax.config.update(setting, False)
    assert workdirs.newest(tmp_path) == 2


def test_the_search_for_nan_names_the_operation(tmp_path, monkeypatch):
    config = tiny.mixture("flow_matching", num_steps=2)
    poisoned = build.source(config)
    draw = poisoned.draw
    object.__setattr__(poisoned, "draw", lambda rng, n: draw(rng, n) * np.nan)
    monkeypatch.setattr(build, "source", lambda _: poisoned)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="encountered in"):
        trainer.train(config, str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["flow_matching", "ctm", "fmm", "shortcut", "consistency", "psd", "lsd"])
def test_what_differs_between_objectives_trains_and_is_previewed(objective, tmp_path):
    """Networks inside networks, both directions of time, few step sizes, the diagonal alone, none: two steps and a
    picture."""
    config = tiny.mixture(objective, num_steps=2)
    config.train.preview_every = 2
    trainer.train(config, str(tmp_path))
    assert (tmp_path / "previews" / "step_0000002.png").exists()
    (row,) = _rows(tmp_path)
    assert row["grad_norm"] > 0 and all(np.isfinite(value) for value in row.values())


def test_averaged_and_raw_parameters_differ(tmp_path):
    trainer.train(tiny.mixture(), str(tmp_path))
    averaged, raw = (build.restore_net(str(tmp_path), ema=ema).params for ema in (True, False))
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(averaged), jax.tree.leaves(raw), strict=True))
    with pytest.raises(InputError, match="no checkpoint of step 3: it has 2, 4, 6"):
        build.restore_net(str(tmp_path), step=3)


def test_continuing_gives_the_same_bits(tmp_path):
    """A constant learning rate, so that a shorter run is the start of a longer one."""

    def config(num_steps):
        config = tiny.mixture(num_steps=num_steps)
        config.optim.schedule = "constant"
        return config

    trainer.train(config(6), str(tmp_path / "whole"))
    trainer.train(config(4), str(tmp_path / "parts"))
    # What a kill after the last checkpoint leaves behind: rows of steps that are done again, and half a row.
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 0}\n{"step": 6, "lo')
    trainer.train(config(6), str(tmp_path / "parts"))

    workdirs.assert_equal(tmp_path / "whole", tmp_path / "parts")
    assert [row["step"] for row in _rows(tmp_path / "parts")] == [2, 4, 6]
    for whole, part in zip(_rows(tmp_path / "whole"), _rows(tmp_path / "parts"), strict=True):
        assert whole["loss"] == part["loss"] and whole["grad_norm"] == part["grad_norm"]


@pytest.mark.parametrize("per_dispatch", [1, 2])
def test_batches_are_numbered_by_step_also_when_continuing(per_dispatch, tmp_path, monkeypatch):
    seen = []

    class Recorder(Stepwise):
        def batch(self, seed, step, batch_size, rows):
            seen.append(step)
            return {"x": np.zeros((batch_size, 1), np.float32), "label": np.zeros(batch_size, np.int32)}

        def identity(self):
            return {"name": "recorder"}

    monkeypatch.setattr(build, "source", lambda config: Recorder())
    for num_steps, expected in [(4, [0, 1, 2, 3]), (6, [4, 5])]:
        config = tiny.mixture(num_steps=num_steps)
        config.train.steps_per_dispatch = per_dispatch
        seen.clear()
        trainer.train(config, str(tmp_path))
        assert seen == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run, and its configuration."""
    config = tiny.mixture(num_steps=600)
    config.train.log_every, config.train.checkpoint_every = 20, 50  # so that some lines span a checkpoint
    workdir = tmp_path_factory.mktemp("whole")
    trainer.train(config, str(workdir))
    return config, workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code, says",
    [
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGTERM, 0, "SIGTERM: stopping after this step"),
    ],
    ids=["kill", "term"],
)
def test_a_signal_at_any_moment_loses_nothing_but_time(number, code, says, whole, tmp_path):
    config, undisturbed = whole
    script = (
        "from tests import conftest, tiny; from sgflow_jax import trainer; config = tiny.mixture(num_steps=600); "
        "config.train.log_every, config.train.checkpoint_every = 20, 50; "
        f"trainer.train(config, {str(tmp_path / 'run')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "run" / "checkpoints" / "150").exists():
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == code and says in out
    stopped = workdirs.newest(tmp_path / "run")
    assert 150 <= stopped < 600 and (not says or f"saved step {stopped}: the same command continues" in out)

    trainer.train(config, str(tmp_path / "run"))
    workdirs.assert_equal(undisturbed, tmp_path / "run")
    for one, other in zip(_rows(undisturbed), _rows(tmp_path / "run"), strict=True):
        for row in (one, other):
            for clock in ("images_per_second", "wall_seconds", "device_seconds"):
                row.pop(clock, None)
        assert one == other


def test_a_directory_in_use_is_refused(tmp_path):
    with ownership.claimed(str(tmp_path)), pytest.raises(InputError, match="in use by another run"):
        trainer.train(tiny.mixture(), str(tmp_path))
    trainer.train(tiny.mixture(), str(tmp_path))


def test_a_finished_run_is_left_alone(tmp_path):
    trainer.train(tiny.mixture(), str(tmp_path))
    before = (tmp_path / "metrics.jsonl").read_text()
    trainer.train(tiny.mixture(), str(tmp_path))
    assert (tmp_path / "metrics.jsonl").read_text() == before and workdirs.newest(tmp_path) == 6


def test_several_steps_a_dispatch(tmp_path):
    single, several = tiny.mixture(), tiny.mixture()
    several.train.steps_per_dispatch = 2
    trainer.train(single, str(tmp_path / "single"))
    trainer.train(several, str(tmp_path / "several"))
    left, right = (build.restore_net(str(tmp_path / w)).params for w in ("single", "several"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), left, right)


def test_another_configuration_is_refused_by_name(tmp_path):
    trainer.train(tiny.mixture(), str(tmp_path))
    other = tiny.mixture()
    other.seed, other.optim.learning_rate, other.train.log_every = 5, 0.5, 3
    with pytest.raises(InputError, match=r"optim.learning_rate \(there 0.002, here 0.5\), seed \(there 0, here 5\):"):
        trainer.train(other, str(tmp_path))


def test_a_diverging_run_stops_before_it_saves_and_says_where(tmp_path):
    config = tiny.mixture()
    trainer.train(config, str(tmp_path))
    config.train.num_steps = 12
    poisoned = build.source(config)
    draw = poisoned.draw
    object.__setattr__(poisoned, "draw", lambda rng, n: draw(rng, n) * np.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "source", lambda _: poisoned)
        with pytest.raises(
            trainer.Stopped, match="loss is not finite at step 7; the last good checkpoint is of step 6"
        ):
            trainer.train(config, str(tmp_path))
    assert workdirs.newest(tmp_path) == 6
    assert _rows(tmp_path)[-1]["step"] == 6


@pytest.mark.parametrize(
    "section, field, value, match",
    [
        ("train", "num_steps", 0, "train.num_steps is 0"),
        ("optim", "warmup_steps", -1, "warmup_steps is -1"),
        ("seed", None, 2**40, "seed is 1099511627776"),
        ("eval", "num_samples", 1, "num_samples is 1"),
        ("optim", "learning_rate", float("inf"), "learning_rate is inf"),
        ("objective", "logit_mean", float("nan"), "logit_mean is nan"),
        ("train", "log_every", 0, "log_every is 0"),
        ("train", "steps_per_dispatch", 4, "multiple of train.steps_per_dispatch = 4"),
        ("data", "batch_size", 6, "batch_size is 6, not divisible by 8"),
        ("data", "name", "mnist", "'mnist'"),
        ("optim", "schedule", "step", "'step'.*cosine"),
        ("optim", "ema_decay", 1.0, "ema_decay is 1.0"),
        ("model", "num_classes", 3, "num_classes is 3"),
        ("model", "dtype", "float16", "'float16'"),
        ("objective", "time_law", "beta", "'beta'"),
        ("objective", "prob_diagonal", 0.0, "prob_diagonal"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(section, field, value, match, tmp_path):
    config = tiny.mixture()
    if field:
        config[section][field] = value
    else:
        config[section] = value
    with pytest.raises(InputError, match=match):
        trainer.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_lost_config_file_is_not_a_licence_to_mix_runs(tmp_path):
    trainer.train(tiny.mixture(), str(tmp_path))
    (tmp_path / "config.json").unlink()
    other = tiny.mixture()
    other.optim.learning_rate = 0.5
    with pytest.raises(InputError, match="learning_rate"):
        trainer.train(other, str(tmp_path))
    assert not (tmp_path / "config.json").exists()


def test_fewer_steps_than_there_are_is_refused(tmp_path):
    trainer.train(tiny.mixture(num_steps=6), str(tmp_path))
    with pytest.raises(InputError, match="checkpoint of step 6.*num_steps is 4"):
        trainer.train(tiny.mixture(num_steps=4), str(tmp_path))


def test_a_divergence_is_named_also_when_a_preview_comes_first(tmp_path):
    config = tiny.mixture(num_steps=40)
    config.optim.learning_rate, config.train.log_every, config.train.preview_every = 1e38, 40, 5
    config.train.checkpoint_every = 40
    with pytest.raises(trainer.Stopped, match="at step .*; there is no checkpoint yet"):
        trainer.train(config, str(tmp_path))


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not writable"):
        trainer.train(tiny.mixture(), str(tmp_path / "file" / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("")
    with pytest.raises(InputError, match="checkpoints is not writable"):
        trainer.train(tiny.mixture(), str(tmp_path / "run"))
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["checkpoints"]
