"""The curve of runs with many settings."""

import pytest

from eval import report
from eval.page.runs import Run
from tests import rows


def _run(settings: int) -> Run:
    """A run measured in two numbers of steps at so many checkpoints."""
    measured = [
        rows.row(calls, value=float(step), checkpoint_step=step) for step in range(1, settings + 1) for calls in (1, 4)
    ]
    return Run("mine", "mine", measured, None, [], [], ())


@pytest.mark.parametrize("settings, lines", [(report.MOST_LINES, report.MOST_LINES), (report.MOST_LINES + 1, 1)])
def test_the_curve_of_too_many_settings_is_that_of_the_table(settings, lines):
    files = {}
    (shown,) = report._quality([_run(settings)], files)
    told = shown["alt"].partition("one line per run. ")[2]
    assert told.count("in 1 step") == lines and f"{settings} in 1 step" in told
    assert files["quality.png"][:4] == b"\x89PNG"
