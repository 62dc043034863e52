import sys

import pytest

from eval.scores import progress


@pytest.fixture
def clock(monkeypatch):
    """Sets what the next readings of the clock are."""
    return lambda *seconds: monkeypatch.setattr(progress.time, "perf_counter", iter(seconds).__next__)


def test_a_line_a_row_with_a_forecast(clock, capsys):
    """Ten seconds for the first of rows of 1 and 7 steps, 6 and 12 calls an example with what comes after sampling."""
    clock(0.0, 10.0, 25.0)
    with progress.Sampling([(2000, 1), (2000, 7)]) as shown:
        for what, calls in (("runs/a, 1 step", 1), ("runs/a, 7 steps", 7)):
            shown.begin(what)
            shown.advance(2000, calls)
            shown.row(what, 2000, calls, "8.2794")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "sampling: 2 rows ...",
        "[1/2] runs/a, 1 step (10 s, about 20 s to go)",
        "[2/2] runs/a, 7 steps (25 s, about 0 s to go)",
    ]
    assert not captured.err  # no terminal, no bar


def test_a_phase_says_what_it_is_and_what_it_took(clock, capsys):
    clock(3.0, 7.0)
    assert list(progress.track([[1, 2], [3]], "reference statistics", 3, "images")) == [[1, 2], [3]]
    assert capsys.readouterr().out.splitlines() == [
        "reference statistics: 3 images ...",
        "reference statistics: done in 4 s",
    ]


def test_in_a_terminal_the_bar_alone_tells_of_a_row(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.Sampling([(20, 4)]) as shown:
        shown.begin("a, 4 steps")
        shown.advance(20, 4)
        shown.row("runs/a, 4 steps", 20, 4, "1.5 ± 0.1")
    captured = capsys.readouterr()
    assert captured.out == "sampling: 1 row ...\n"
    assert "[1/1] a, 4 steps" in captured.err and "last 1.5 ± 0.1" in captured.err
