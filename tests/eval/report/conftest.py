"""A page made from files written here, with random examples as generated ones."""

import numpy as np
import pytest

from eval import report
from eval.machine import gradient_cost
from tests import tiny
from tests.rows import digits_row, finished_run


@pytest.fixture(autouse=True)
def no_cost(monkeypatch):
    """Compiling a gradient takes seconds. `page`, which is made before this, has true costs."""
    monkeypatch.setattr(gradient_cost, "gradient_cost", lambda *_: gradient_cost.Cost(1.0, 1))


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """A page about two runs: its folder and its rows."""
    folder = tmp_path_factory.mktemp("report")
    images = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 1)).astype(np.uint8)
    rows = {
        name: [digits_row(n, scale / n + seed / 7, seed, objective=name) for n in (1, 2, 16) for seed in (0, 3)]
        for name, scale in (("sgflow", 5.123), ("flow_matching", 90.77))
    }
    workdirs = [finished_run(folder / name, rows[name], tiny.digits(name), images) for name in rows]
    assert report.write(workdirs, str(folder / "out")) == folder / "out" / "index.html"
    return folder / "out", [row for each in rows.values() for row in each]
