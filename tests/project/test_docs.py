"""What the documents tell readers to write works as written."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from eval.exact import audit
from sgflow_jax import objectives
from sgflow_jax.config.check import check_config
from tests.commands import ROOT

DOCS = ROOT / "docs"
DOCUMENTS = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("*.ipynb")]
WRITTEN_BY_THE_READER = re.compile(r".*/(NAME|both_ends)\.py")


@pytest.mark.slow
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


def test_links_lead_somewhere():
    for file in DOCUMENTS:
        text = re.sub(r"```.*?```|`[^`]*`", "", _prose(file), flags=re.DOTALL)
        for link, heading in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
            if not link.startswith("https://"):
                target = file.parent / link if link else file
                assert target.exists(), (file.name, link)
                assert not heading or heading in _headings(target), (file.name, heading)


def _prose(file: Path) -> str:
    """The text of a document, or of a notebook's cells that are not code."""
    if file.suffix == ".md":
        return file.read_text()
    return "\n".join(
        "".join(cell["source"]) for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "markdown"
    )


def _headings(file: Path) -> list[str]:
    """The anchors GitHub makes of a document's headings."""
    titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_index_names_every_document():
    named = re.findall(r"\]\(([^)#]*)[^)]*\)", (DOCS / "README.md").read_text())
    assert {(DOCS / name).resolve() for name in named} >= {file for file in DOCUMENTS if file != DOCS / "README.md"}


def test_the_readme_fits_in_one_reading():
    assert len((ROOT / "README.md").read_text().split()) < 1400


def test_commands_in_the_documents_exist():
    """Each `python -m eval.NAME` names a module, and each path of the code a file."""
    for file in DOCUMENTS:
        for module in re.findall(r"python -m (eval\.\w+)", file.read_text()):
            assert importlib.util.find_spec(module), (file.name, module)
        for path in re.findall(r"`((?:sgflow_jax|eval|tests|configs|scripts)/[\w/]+\.(?:py|sh))`", file.read_text()):
            assert (ROOT / path).exists() or WRITTEN_BY_THE_READER.fullmatch(path), (file.name, path)
    files = {
        file.name for folder in ("configs", "sgflow_jax", "eval", "tests") for file in (ROOT / folder).rglob("*.py")
    }
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", (ROOT / "README.md").read_text()))
    assert named and named <= files | {"NAME.py"}, named - files
