import re
import subprocess
import sys

import pytest

from sgflow_jax import models, objectives
from sgflow_jax.config import fields, help
from tests import tiny
from tests.commands import ROOT


def test_every_field_has_its_meaning_beside_it():
    lines = help.of_config(tiny.mixture()).splitlines()
    for name, field in fields.FIELDS.items():
        (line,) = (line for line in lines if line.startswith(f"  --config.{name}="))
        assert field.text.split()[0] in line, name
    assert "learning rate (one of stop, rollback)" in " ".join(" ".join(lines).split())


def test_every_option_of_an_objective_and_a_network_is_explained():
    cases = [(objective, "mlp") for objective in objectives.names()] + [("sgflow", "unet"), ("sgflow", "song_unet")]
    for objective, network in cases:
        config = tiny.mixture(objective)
        config.model = fields.network(network)
        text = help.of_config(config).partition("The options of")[2]
        for option in [*objectives.default_options(objective), *models.default_options(network)]:
            assert re.search(rf"^(?:[\w, ]*, )?{option}(?:, [\w, ]*)?:", text, re.MULTILINE), option


def test_help_lists_only_a_commands_own_flags_in_groups_and_two_examples():
    done = subprocess.run([sys.executable, "main.py", "-h"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert {"--config", "--workdir", "--mode=train", "--dry_run"} <= set(done.stdout.split())
    assert done.stdout.count("    python main.py") == 2
    groups = {group.partition(":")[0]: group for group in done.stdout.split("\n\n")}
    wanted = {"Flags": "workdir", "With --mode=sample": "steps", "With --mode=import": "weights"}
    for title, flag in (wanted | {"With --mode=train": "dry_run"}).items():
        assert f"  --{flag}" in groups[title]
    assert groups["Several processes"].count("  --") == 3
    assert "--alsologtostderr" not in done.stdout and "jax_" not in done.stdout


@pytest.mark.parametrize("command", sorted(p.stem for p in (ROOT / "eval").glob("*.py") if "__main__" in p.read_text()))
def test_every_command_has_two_examples(command):
    doc = (ROOT / "eval" / f"{command}.py").read_text().split('"""')[1]
    assert len(re.findall(rf"^    python -m eval\.{command} --", doc, re.MULTILINE)) == 2
