from eval import progress, results
from tests.rows import row


def test_a_line_a_row_with_a_forecast(monkeypatch, capsys):
    """Ten seconds for the first of rows of 1 and 7 steps, 6 and 12 calls an example with what comes after sampling."""
    clock = iter([0.0, 10.0, 25.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    rows = [row(1, 2.5), row(7, 1.5)]
    with progress.Progress([each.identity for each in rows]) as shown:
        for each in rows:
            shown.advance(each.identity.num_samples * each.identity.steps)
            shown.row("runs/a", each)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"[1/2] runs/a, {results.describe(rows[0])} (10 s, about 20 s to go)"
    assert lines[1] == f"[2/2] runs/a, {results.describe(rows[1])} (25 s, about 0 s to go)"
