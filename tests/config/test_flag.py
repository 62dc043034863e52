"""--config and its overrides: the file is executed once; an error for a wrong name or value says what is valid."""

import shutil

import pytest
from absl import flags

from sgflow_jax.config import flag
from sgflow_jax.interfaces import InputError
from tests.commands import ROOT

QUICKSTART = "--config=configs/quickstart.py"


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def parsed(*arguments, **how):
    """The configuration that a command line gives."""
    argv, values = ["main.py", *arguments], flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", values)
    flag.define(argv, "", flag_values=values, **how)
    assert flag.parse(argv, values) == ["main.py"]
    return values["config"].value


@pytest.mark.parametrize(
    "arguments, match",
    [
        (["--config=configs/nope.py"], "no file configs/nope.py.*configs/cifar10.py"),
        (["--config="], "--config is missing: give --config=FILE.py"),
        (["--config"], "--config is missing: give --config=FILE.py"),
        (["--config=configs/base.py"], "configs/base.py: get_config must return a locked ConfigDict"),
        (["--config=README.md"], "README.md fails with SyntaxError"),
        (["--config=docs/quickstart_samples.png"], "quickstart_samples.png fails with SyntaxError"),
        ([QUICKSTART + ":nope"], "'nope'.*sgflow, flow_matching, mean_flow"),
        ([QUICKSTART + ":"], "unknown objective ''"),
        (["--workdir=nowhere", "--config.train.num_steps=3"], "give --config=FILE.py, or the --workdir of a run"),
        ([QUICKSTART, "--config.train.num_step=3"], "has no field num_step; did you mean --config.train.num_steps?"),
        ([QUICKSTART, "--config.nosuch.x=3"], "config has no field nosuch.*train"),
        ([QUICKSTART, "--config.train=3"], "use one of checkpoint_every, .*num_steps"),
        ([QUICKSTART, "--config.train.num_steps.x=3"], "without parts: use --config.train.num_steps=VALUE"),
        ([QUICKSTART, "--config.train.num_steps=abc"], "num_steps=abc: use an integer from 1 to 2147483647"),
        ([QUICKSTART, "--config.train.num_steps", "1.5"], "num_steps=1.5: use an integer"),
        ([QUICKSTART, "--config.optim.learning_rate=fast"], "learning_rate=fast: use a number > 0"),
        ([QUICKSTART, "--config.data.flip=maybe"], "flip=maybe: use true or false"),
        ([QUICKSTART, "--config.model.channel_mult=(1,"], r"channel_mult=\(1,: use integers"),
        ([QUICKSTART + ":mean_flow", "--config.objective.estimator=split"], "no field estimator.*weight_power"),
    ],
)
def test_a_wrong_config_flag_names_what_is_valid(arguments, match):
    with pytest.raises(InputError, match=match):
        parsed(*arguments, of_run=True)


def test_overrides(tmp_path):
    config = parsed(
        "--config.seed=3",  # before its file
        "--config",
        "configs/quickstart.py:mean_flow",
        "--config.train.num_steps",
        "10",
        "--config.optim.learning_rate=1",
        "--config.objective.logit_mean",
        "-0.5",
        "--config.data.flip",
        "--config.data.name=mnist",
        "--config.model.channel_mult=(1,2,3)",
        "--config.profile.steps=100,105",
        "--config.eval.steps=1",
        "--config.eval.steps=8",
    )
    assert config.is_locked and config.objective.name == "mean_flow"
    assert (config.seed, config.train.num_steps, config.objective.logit_mean) == (3, 10, -0.5)
    assert config.optim.learning_rate == 1.0 and isinstance(config.optim.learning_rate, float)
    assert config.data.flip is True and config.data.name == "mnist"
    assert config.model.channel_mult == (1, 2, 3)
    assert (config.profile.steps, config.eval.steps) == ((100, 105), (1, 8))

    (tmp_path / "flags").write_text("--config=configs/cifar10.py\n--noconfig.data.flip\n--config.profile.steps=()\n")
    config = parsed(f"--flagfile={tmp_path}/flags")
    assert config.data.flip is False and config.profile.steps == ()
    assert parsed(default="configs/cifar10.py").data.name == "cifar10"
    assert parsed(QUICKSTART, default="configs/cifar10.py").data.name == "digits"
    assert parsed() is None


def test_a_configuration_is_found_without_a_checkout(tmp_path, monkeypatch):
    """Its own file comes first."""
    monkeypatch.chdir(tmp_path)
    assert parsed(QUICKSTART).data.name == "digits"
    assert parsed("--config=configs/published/psd_cifar10.py").objective.name == "psd"
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "mixture1d.py", tmp_path / "configs" / "quickstart.py")
    assert parsed(QUICKSTART).data.name == "mixture1d"
    (tmp_path / "configs" / "mine.py").touch()
    for missing, match in (("configs/nope.py", "quickstart.py"), ("quickstart.py", "configs/cifar10.py.*mine.py")):
        with pytest.raises(InputError, match=f"no file {missing}; use one of .*{match}"):
            parsed(f"--config={missing}")


@pytest.mark.parametrize(
    "start", ["from configs import base as fields", "from sgflow_jax.config import fields"], ids=["configs", "library"]
)
def test_a_users_own_file_is_executed_once(start, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"""{start}

open(r"{tmp_path}/executions", "a").write("x")

def get_config(objective="esd"):
    config = fields.get_config(objective)
    fields.set_objective(config, warmup_steps=7, correction=0.5)
    config.data.name = "digits"
    config.model = fields.unet()
    return config.lock()
""")
    config = parsed(f"--config={file}", "--config.seed=4", "--config.model.channels=8")
    assert (config.objective.name, config.objective.warmup_steps, config.seed) == ("esd", 7, 4)
    assert (config.model.channels, config.model.num_blocks) == (8, 3)
    assert (tmp_path / "executions").read_text() == "x"


@pytest.mark.parametrize(
    "text, match",
    [
        ("import nosuch", "mine.py fails with ModuleNotFoundError: No module named 'nosuch'"),
        ("config = 3", "mine.py fails with KeyError: 'get_config'"),
        ("raise SystemExit(3)", "mine.py fails with SystemExit: 3"),
        ("get_config = lambda: fields.get_config()", "mine.py: get_config must return a locked ConfigDict"),
        ("get_config = lambda: fields.get_config().lock()", "mine.py: unknown model None: use one of unet, mlp"),
        (
            "def get_config():\n config = fields.get_config()\n config.model = fields.mlp()\n"
            " config.train.num_steps = 0\n return config.lock()",
            "mine.py: config.train.num_steps is 0: use an integer from 1",
        ),
    ],
)
def test_a_users_own_file_that_fails_is_named(text, match, tmp_path):
    (tmp_path / "mine.py").write_text("from sgflow_jax.config import fields\n" + text)
    with pytest.raises(InputError, match=match):
        parsed(f"--config={tmp_path}/mine.py")


def test_a_runs_directory_is_enough(line_run):
    config = parsed(f"--workdir={line_run}", "--config.train.num_steps=9", of_run=True)
    assert config.is_locked and config.model.width == 8 and config.eval.steps == (1, 4)
    assert config.train.num_steps == 9
    with pytest.raises(InputError, match="num_steps=x: use an integer"):
        parsed("--workdir", line_run, "--config.train.num_steps=x", of_run=True)
    assert parsed(f"--workdir={line_run}/no", of_run=True) is None
