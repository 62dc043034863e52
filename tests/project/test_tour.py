"""The notebook runs from top to bottom, and is kept as it ran."""

import os
import re

import nbclient
import nbformat
import pytest

from tests.commands import ROOT

FILE = ROOT / "docs" / "tour.ipynb"
# In place of the cell that says what the tour spends. The network of the digits takes half a minute to compile.
BUDGET = """
from configs import quickstart
from eval.exact import audit

LINE_STEPS, DIGIT_STEPS, AUDIT_EXAMPLES = 50, 2, 8192
audit.BATCH = 512
whole = quickstart.get_config


def small(objective):
    config = whole(objective)
    config.data.batch_size, config.model.channels, config.model.channel_mult = 8, 4, (1,)
    return config


quickstart.get_config = small
"""


@pytest.fixture
def notebook():
    return nbformat.read(FILE, as_version=4)


def _outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def _printed(notebook):
    return "".join(output.text for output in _outputs(notebook) if output.output_type == "stream")


def _pictures(notebook):
    return sum("image/png" in output.get("data", {}) for output in _outputs(notebook))


def _audit(notebook):
    """z at the exact map, by the name of the row."""
    return {name: float(z) for name, z in re.findall(r"^(mine\S*) +([\d.]+)", _printed(notebook), re.MULTILINE)}


def test_it_is_kept_small_as_it_ran(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in _outputs(notebook))
    assert not any("execution" in cell.metadata for cell in notebook.cells)
    text = FILE.read_text()
    assert len(text) < 600_000 and not re.search(r"/(tmp|root|home|work|usr)/|https?://(?!colab)", text)


def test_what_its_text_claims(notebook):
    rmse = [float(value) for value in re.findall(r"RMSE ([\d.]+)", _printed(notebook))]
    assert rmse[0] == rmse[1] < 0.25 < 1 < rmse[2]
    z = _audit(notebook)
    assert z["mine"] < 4 and z["mine(sign=1)"] > 8


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path):
    kept = _pictures(notebook)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = BUDGET
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"})

    assert _pictures(notebook) == kept == 4
    assert (tmp_path / "runs" / "tour" / "digits" / "checkpoints" / "2").is_dir()
    z = _audit(notebook)
    assert z["mine"] < 4 and z["mine(sign=1)"] > 8
