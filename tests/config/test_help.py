import re
import subprocess
import sys

import pytest

from sgflow_jax import objectives
from sgflow_jax.config import fields, flag, help
from sgflow_jax.config.fields import flatten
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.commands import ROOT


@pytest.mark.parametrize("network", fields.NETWORKS)
def test_every_field_has_a_comment(network):
    config = tiny.mixture()
    config.model = fields.NETWORKS[network]()
    text = help.of_config(config)
    for name in flatten(config.to_dict()):
        line = re.search(rf"^  --config\.{name}=.*(?:\n {{10}}.*)?", text, re.MULTILINE)[0]
        assert name.startswith("objective.") or len(line.partition("=")[2].split()) > 1, name


@pytest.mark.parametrize("name", objectives.names())
def test_every_option_of_an_objective_is_explained(name):
    config = tiny.mixture(name)
    text = help.of_config(config).partition("The options of")[2]
    for option in objectives.default_options(name):
        assert re.search(rf"^(?:[\w, ]*, )?{option}(?:, [\w, ]*)?:", text, re.MULTILINE), option


def test_help_shows_a_commands_own_flags_and_two_examples():
    done = subprocess.run([sys.executable, "main.py", "-h"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert {"--config", "--workdir", "--mode=train", "--dry_run"} <= set(done.stdout.split())
    assert done.stdout.count("    python main.py") == 2
    common, sampling, training, several = done.stdout.split("\n\n")[-5:-1]
    assert "--workdir" in common and "--parameters" in sampling and "--dry_run" in training
    assert sampling.startswith("With --mode=sample:") and several.count("  --") == 3
    assert "--alsologtostderr" not in done.stdout and "jax_" not in done.stdout


@pytest.mark.parametrize("command", sorted(p.stem for p in (ROOT / "eval").glob("*.py") if "__main__" in p.read_text()))
def test_every_command_has_two_examples(command):
    doc = (ROOT / "eval" / f"{command}.py").read_text().split('"""')[1]
    assert len(re.findall(rf"^    python -m eval\.{command} --", doc, re.MULTILINE)) == 2


def test_a_typo_names_the_nearest_field(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError, match="did you mean --config.train.num_steps?"):
        flag.check(["main.py", "--config=configs/toy2d.py", "--config.train.num_step=3"])


def test_a_runs_directory_is_enough(line_run):
    config = flag.check(["main.py", f"--workdir={line_run}", "--config.train.num_steps=9"], of_run=True)
    assert config.is_locked and config.model.width == 8 and config.eval.steps == (1, 4)
    with pytest.raises(InputError, match="num_steps=x: use an integer"):
        flag.check(["main.py", "--workdir", line_run, "--config.train.num_steps=x"], of_run=True)
    assert flag.check(["main.py", f"--workdir={line_run}/no"], of_run=True) is None
