"""What a sweep shows in the terminal."""

from eval import reference
from eval.scores import summary
from eval.scores.measure import Halves
from tests.rows import row


def test_one_table_steps_down_and_runs_across(monkeypatch):
    monkeypatch.setattr(reference, "halves", lambda identity: Halves(0.2566, (899, 898)))
    tagged = [("sgflow", row(1, 3.0)), ("sgflow", row(10, 1.0)), ("psd", row(1, 12.25))]
    assert summary.screen(tagged).splitlines() == [
        "FD-pixels-2k",
        "",
        " steps  sgflow   psd",
        "     1  3 ± 0.1  12.25 ± 0.1",
        "    10  1 ± 0.1  -",
        "",
        "Squared Fréchet distance between 2,000 samples and the 1,797 of digits/train in their pixels; lower",
        "is better. Two halves of the real ones have distance 0.26. ±: standard error of drawing the samples.",
    ]


def test_guidance_is_named_even_if_all_rows_have_it(monkeypatch):
    monkeypatch.setattr(reference, "halves", lambda identity: None)
    text = summary.screen([("sgflow", row(1, 3.0, guidance=2.0)), ("sgflow", row(4, 3.0, guidance=2.0))])
    assert " steps  sgflow (guidance 2)\n" in text


def test_over_seeds_it_has_mean_and_range(monkeypatch):
    monkeypatch.setattr(reference, "halves", lambda identity: None)
    text = summary.screen([("sgflow", row(1, 3.0)), ("sgflow", row(1, 5.0, seed=1))])
    assert "     1  4 ± 1\n" in text and "half of the range over seeds" in text and "halves" not in text


def test_many_runs_come_in_blocks_and_kinds_of_distance_apart(monkeypatch):
    monkeypatch.setattr(reference, "halves", lambda identity: None)
    tagged = [(f"run number {n}", row(1, 1.0 + n)) for n in range(12)]
    lines = summary.screen([*tagged, ("run number 0", row(1, 1.0, num_samples=50))]).splitlines()
    assert max(map(len, lines)) <= summary.WIDTH
    assert sum(line.startswith(" steps") for line in lines) == 3
    assert [line for line in lines if line.startswith("FD-pixels")] == ["FD-pixels-2k", "FD-pixels, 50 samples"]
    assert sum(line.count("run number") for line in lines) == 13
