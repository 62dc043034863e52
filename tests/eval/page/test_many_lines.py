"""The curve of runs with many settings."""

import pytest

from configs import quickstart
from eval import report
from eval.page.runs import Run
from tests import rows


def _run(settings: int) -> Run:
    """A run measured in two numbers of steps at so many checkpoints."""
    measured = [
        rows.row(calls, value=float(step), checkpoint_step=step) for step in range(1, settings + 1) for calls in (1, 4)
    ]
    return Run("mine", "mine", "mine", measured, None, [], [], ())


@pytest.mark.parametrize("settings, lines", [(report.MOST_LINES, report.MOST_LINES), (report.MOST_LINES + 1, 1)])
def test_the_curve_of_too_many_settings_is_that_of_the_table(settings, lines):
    files = {}
    (shown,) = report._quality([_run(settings)], files)
    told = shown["alt"].partition("one line per run. ")[2]
    assert told.count("in 1 step") == lines and f"{settings} in 1 step" in told
    assert files["quality.png"][:4] == b"\x89PNG"


@pytest.mark.parametrize("known, method", [(True, "flow_map"), (False, "euler")])
def test_the_objective_s_own_method_is_shown_even_if_it_takes_fewer_numbers_of_steps(known, method):
    measured = [rows.row(1), *(rows.row(calls, method="euler") for calls in (1, 4))]
    config = quickstart.get_config("shortcut") if known else None
    run = Run("mine", "mine", "mine", measured, config, [], [], ())
    shown = run.chosen(measured[0].kind)
    assert {row.identity.method for each in shown.values() for row in each} == {method}
