import numpy as np
import pytest

from eval.scores import plots, summary
from sgflow_jax.display import figures


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take two thirds of a tiny sweep: empty files and blank pictures in their place."""
    monkeypatch.setattr(plots, "distance_curve", lambda *_: None)
    monkeypatch.setattr(summary, "png", lambda _: b"")
    monkeypatch.setattr(figures, "point_panels", lambda *_: np.zeros((1, 1, 3), np.uint8))
