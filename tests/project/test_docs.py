"""What the documents tell readers to write works as written."""

import importlib
import re

import pytest

from eval.exact import audit
from sgflow_jax import objectives
from sgflow_jax.config.check import check_config
from tests.commands import ROOT

DOCS = ROOT / "docs"


def test_the_example_of_an_added_objective(monkeypatch, x64):
    code = re.findall(r"```python\n(.*?)```", (DOCS / "objectives.md").read_text(), re.DOTALL)
    file, line = code[-2:]
    names = {}
    exec(compile(file, "both_ends.py", "exec"), names)
    monkeypatch.setitem(objectives._OBJECTIVES, *eval("{" + line + "}", names).popitem())

    for name in ("cifar10", "quickstart", "toy2d", "mixture1d"):
        config = importlib.import_module(f"configs.{name}").get_config("both_ends")
        config.objective.balance = 0.5
        check_config(config)

    settings = {"objective": "both_ends", "law": "gaussian", "seed": 3, "max_samples": 2**15, "tolerance": 0.02}
    assert audit.verdict({**settings, **audit.measure(settings)}) == "stops"


@pytest.mark.parametrize("document", ["README.md", "docs/objectives.md", "docs/evaluation.md"])
def test_links_lead_somewhere(document):
    file = DOCS.parent / document
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text()):
        assert link.startswith("https://") or (file.parent / link).exists(), link
