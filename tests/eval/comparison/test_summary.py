"""Tables of a comparison, from rows made by hand."""

import pytest

from eval.comparison import plots, summary
from eval.figure import png

REAL = {"halves": 0.01, "train": 0.1, "test": 0.2, "counts": {"halves": 50, "train": 20, "test": 10}}
FACTS = {"distance": "FD-pixels, 20 samples", "budget": "images:100", "spread": 2e-7}


def _row(objective, seed, own, euler=None, method="flow_map", diverged=None, early=9.0):
    """A row with distances by number of steps."""
    each = {"weights": "", "resize": "", "features": "pixels", "data": "digits", "fingerprint": "f"}
    each |= {"value_error": None, "kernel": 0.0, "precision": None, "recall": None}
    told = [
        {**each, "steps": n, "method": method, "share": 1.0, "value": value, "network": "a"} for n, value in own.items()
    ]
    told += [
        {**each, "steps": n, "method": "euler", "share": 1.0, "value": value, "network": "a"}
        for n, value in (euler or {}).items()
    ]
    if own:
        told.append({**each, "steps": 1, "method": method, "share": 0.5, "value": early, "network": "b"})
    costs = {"images": 100, "num_steps": 10, "last_steps": 10, "flops": 3e12, "device_seconds": 5.0, "rollbacks": seed}
    settings = {"objective": objective, "first": 0.0, "seed": seed, "features": "pixels", "num_samples": 20}
    return {**settings, **costs, "method": method, "diverged": diverged, "faults": [], "distances": told}


@pytest.fixture
def groups():
    return summary.groups(
        [
            _row("sgflow", 0, {1: 4.0, 8: 2.0}, {1: 30.0, 8: 3.0}),
            _row("flow_matching", 0, {1: 30.0, 8: 3.0}, method="euler"),
            _row("consistency", 0, {1: 5.0}, method="consistency"),
            _row("sgflow", 1, {1: 4.4, 8: 2.2}, {1: 31.0, 8: 3.3}),
            _row("flow_matching", 1, {1: 33.0, 8: 3.3}, method="euler"),
            _row("consistency", 1, {}, diverged="the loss is not finite"),
        ]
    )


def test_a_group_has_its_own_curve_and_that_of_its_diagonal(groups):
    sgflow, flow_matching, consistency = groups
    assert sgflow.values(8) == {0: 2.0, 1: 2.2} and sgflow.values(8, summary.EULER) == {0: 3.0, 1: 3.3}
    # Flow matching has one curve only; consistency has no diagonal.
    assert flow_matching.values(8) == flow_matching.values(8, summary.EULER) == {0: 3.0, 1: 3.3}
    assert consistency.values(1) == {0: 5.0} and consistency.values(1, summary.EULER) == {}
    assert sgflow.values(1, share=0.5) == {0: 9.0, 1: 9.0} and sgflow.mean("flops") == 3e12
    assert (
        consistency.diverged == [1]
        and summary.calls_of(groups) == [1, 8]
        and summary.curve_calls([row for group in groups for row in group.rows.values()]) == [1]
    )


def test_the_tables_by_hand(groups):
    curves = summary.curve_table(groups).splitlines()
    assert curves[0] == "| objective | 1 | 8 | seeds | diverged |"
    assert curves[2] == "| sgflow | 4.2 ± 0.2 | 2.1 ± 0.1 | 2 | 0 |"
    assert curves[4] == "| consistency | 5 | – | 2 | 1 |"
    # Seed 1 is 10 % worse for both, so that their difference has no spread.
    best = summary.best_table(groups[:2]).splitlines()
    assert best[2] == "| 1 | sgflow (4.2) | none | flow_matching (+650 %) | 0.0 % |"
    assert "| flow_matching | +27.3 ± 1.3 | +1.05 ± 0.05 |" in summary.difference_table(groups, "sgflow")
    assert summary.learning_table(groups[:1], 1).splitlines()[2] == "| sgflow | 9 ± 0 | 4.2 ± 0.2 |"
    assert summary.velocity_table(groups[:2]).splitlines()[2:] == [
        "| sgflow | 75 % | 150 % |",
        "| flow_matching | 10 % | 100 % |",
    ]
    assert "| sgflow | 100 | 10 | 3.0 | 5 | 1 |" in summary.cost_table(groups)


def test_the_document_tells_real_distances_and_faults(groups):
    text = summary.document(groups, REAL, FACTS)
    assert "0.01 between two halves of the training examples (50 each)" in text
    assert "0.2 from 10 test examples" in text and "seeds 0, 1" in text
    assert "- consistency, seed 1: the loss is not finite" in text
    assert "was trained" not in text
    groups[0].rows[0]["distances"][0]["weights"] = "abc"
    assert "trained 2 times" in summary.document(groups, REAL, FACTS)
    assert "The distance between real examples was not measured." in summary.document(groups, None, FACTS)


def test_a_start_is_in_the_name_and_in_the_images_seen():
    chosen = summary.groups([{**_row("sgflow", 0, {1: 4.0}), "first": 0.25, "last_steps": 6}])
    assert chosen[0].name == "sgflow after flow_matching (0.25)"
    (line,) = plots.learning(chosen, [1], "FD").axes[0].lines
    assert list(line.get_xdata()) == [70, 100]  # of 10 steps on 100 images, 4 are before and 3 are half of the rest
    assert "After these shares of the training, of the part after flow matching." in summary.document(
        chosen, None, FACTS
    )


def test_every_objective_is_in_the_figure():
    """One of the user's own, and one that began with flow matching, too."""
    rows = [_row("sgflow", 0, {1: 4.0}), _row("mine(a=1)", 0, {1: 5.0}), {**_row("lsd", 0, {1: 3.0}), "first": 0.5}]
    figure = plots.curves(summary.groups(rows), REAL, "FD")
    shown = {
        ax.get_title(): [text.get_text() for text in ax.get_legend().get_texts()][:2] for ax in figure.axes if ax.axison
    }
    assert shown == {
        plots.WHOLE: ["sgflow", "real: 10 test"],
        "along the Lagrangian equation": ["sgflow", "lsd after flow_matching (0.5)"],
        "others": ["sgflow", "mine(a=1)"],
    }


def test_the_figures_show_what_there_is(groups):
    figure = plots.curves(groups, REAL, "FD-pixels")
    whole, detail = figure.axes
    # The family of consistency; the other two are in every panel.
    assert [ax.get_title() for ax in (whole, detail)] == [plots.WHOLE, "a jump equals two, or a later one"]
    names = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in (whole, detail)]
    assert names[0] == ["sgflow", "flow_matching", "real: 10 test", "real: 20 train"]
    assert names[1] == ["sgflow", "flow_matching", "consistency"]
    # Whole: from real examples at 0.1 to flow matching at 33; in detail up to consistency's 5 in 1 step.
    assert whole.get_ylim() == pytest.approx((0.1 / 1.1, 33 * 1.1))
    assert detail.get_ylim() == pytest.approx((2 / 1.1, 5 * 1.1))
    learning = plots.learning(groups, [1], "FD")
    assert [ax.get_title() for ax in learning.axes] == ["1 step: a jump equals two, or a later one"]
    assert png(figure)[:4] == png(learning)[:4] == b"\x89PNG"
    assert len([ax for ax in plots.diagonals(groups, "FD").axes if ax.axison]) == 3
    assert [group.measured for group in summary.groups([_row("psd", 0, {}, {1: 3.0}), _row("esd", 0, {1: 3.0})])] == [
        False,
        True,
    ]


def test_one_objective_has_one_panel():
    figure = plots.curves(summary.groups([_row("flow_matching", 0, {1: 30.0, 8: 3.0}, method="euler")]), None, "FD")
    assert [ax.get_ylim() for ax in figure.axes if ax.axison] == [pytest.approx((3 / 1.1, 30 * 1.1))]
