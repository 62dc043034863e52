"""Runs that differ in the seed alone are shown as one."""

import json

import pytest

from eval import fid_sweep, report
from eval.figure import plt
from eval.page import runs, training_section
from eval.scores import plots, seeds, summary, training_data
from tests import tiny
from tests.rows import digits_row, finished_run, row

VALUES = {"a": 1.0, "b": 2.0, "c": 6.0}  # of one objective, with the seeds 0, 1, 2


def _run(folder, objective, seed, values, step=4, calls=(1, 4)):
    """A run that was sampled with the seeds 0, 1, ..."""
    config = tiny.digits(objective)
    config.seed = seed
    config.eval.every = 2 * seed  # differs too, but not in what is learnt
    rows = [
        digits_row(n, value / n, k, objective=objective, network=f"{objective}{seed}", checkpoint_step=step)
        for n in calls
        for k, value in enumerate(values)
    ]
    return finished_run(folder, rows, config)


@pytest.fixture
def found(tmp_path):
    """Three seeds of sgflow, one of mean_flow."""
    workdirs = [_run(tmp_path / name, "sgflow", k, [value]) for k, (name, value) in enumerate(VALUES.items())]
    return runs.read([*workdirs, _run(tmp_path / "d", "mean_flow", 0, [3.0, 5.0])])


def test_they_have_one_column_with_the_range_over_seeds(found):
    assert [run.label for run in found] == ["sgflow, seed 0", "sgflow, seed 1", "sgflow, seed 2", "mean_flow"]
    shown = runs.groups(found)
    assert [(group.label, len(group.runs)) for group in shown] == [("sgflow", 3), ("mean_flow", 1)]
    table = report._scores(shown, found[0].rows[0].kind)
    assert table["lines"] == [(1, ["3 ± 2.5", "4 ± 1"]), (4, ["0.75 ± 0.62", "1 ± 0.25"])]
    assert table["titles"] == ["sgflow, 3 seeds", "mean_flow"] and table["settings"] == ["flow_map, step 4"] * 2
    lines = dict(training_section.differences(found))
    assert lines["objective.name"] == ["sgflow", "mean_flow"] and lines["seed"] == ["0, 1, 2", "0"]
    assert lines["eval.every"] == ["0, 2, 4", "0"] and lines["steps trained"] == ["4", "4"]


def test_they_have_one_line_with_a_band(found):
    rows = [(run.group, row) for run in found for row in run.rows]
    figure = plots.distance_curve([row for _, row in rows], [label for label, _ in rows])
    (ax,) = figure.axes
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["sgflow, 3 seeds", "mean_flow"]
    assert legend.get_title().get_text().startswith("mean; band: range over training seeds\n(of one run: ")
    assert list(ax.lines[0].get_ydata()) == [3.0, 0.75]
    corners = ax.collections[0].get_paths()[0].vertices
    assert {y for x, y in corners if x == 1} == {1.0, 6.0}
    plt.close(figure)


def test_a_network_counts_once_however_often_it_was_sampled():
    rows = [digits_row(1, value, seed, network=name) for name, seed, value in (("x", 0, 1), ("x", 1, 3), ("y", 0, 4))]
    assert seeds.band(rows) == (3.0, 2.0, 4.0) and seeds.mean_and_spread(rows) == (3.0, 1.0)


def test_a_run_that_is_behind_is_not_averaged(tmp_path):
    workdirs = [_run(tmp_path / name, "sgflow", k, [1.0], step) for k, (name, step) in enumerate((("a", 4), ("b", 2)))]
    found = runs.read(workdirs)
    table = report._scores(runs.groups(found), found[0].rows[0].kind)
    assert table["titles"] == ["sgflow"] and table["settings"] == ["flow_map, step 4, 1 of 2 runs"]
    assert table["alone"] == 1  # so the page says what ± is of one run


def test_what_some_of_them_lack_is_not_averaged(tmp_path):
    workdirs = [
        _run(tmp_path / name, "sgflow", k, [value], calls=(1, 4) if name == "a" else (1,))
        for k, (name, value) in enumerate(VALUES.items())
    ]
    found = runs.read(workdirs)
    table = report._scores(runs.groups(found), found[0].rows[0].kind)
    assert table["titles"] == ["sgflow, 3 seeds"] and table["lines"] == [(1, ["3 ± 2.5"])]
    rows = [row for run in found for row in run.rows]
    figure = plots.distance_curve(rows)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["sgflow, 3 seeds"]
    assert list(ax.lines[0].get_xdata()) == list(ax.get_xticks()) == [1]
    plt.close(figure)


@pytest.mark.parametrize(
    "measured, expected",
    [
        ({1: "abc", 2: "ab", 4: "abc"}, {1: "abc", 4: "abc"}),
        ({1: "ab", 2: "bc", 4: "bc", 8: "c"}, {2: "bc", 4: "bc"}),  # no number of calls is common to all
        ({1: "a", 2: "b", 4: "b"}, {2: "b", 4: "b"}),
    ],
)
def test_a_curve_is_of_the_largest_set_of_networks_that_share_a_number_of_calls(measured, expected):
    rows = {n: [row(n, network=name) for name in names] for n, names in measured.items()}
    found = seeds.of_one_set(rows)
    assert {n: "".join(one.identity.network for one in each) for n, each in found.items()} == expected


def test_logs_are_averaged_at_the_steps_that_all_have(found):
    for number, run in enumerate(found[:3]):
        rows = [{"step": step, "loss": float(step + number), "wall_seconds": 3600.0 * (1 + number)} for step in (1, 2)]
        run.history[:] = rows[: 1 + (number < 2)]
    points = plots.line([run.history for run in found[:3]], "loss", plots.HOURS)
    assert points == [plots.Point(1, 2.0, 2.0, 1.0, 3.0)]


@pytest.mark.parametrize("data", ["the same", "others", "unknown"])
def test_the_images_matter_and_not_their_place_unless_only_that_is_known(data, tmp_path):
    for number in (0, 1):
        config = tiny.digits()
        config.seed, config.data.data_dir = number, f"/place{number}"
        workdir = finished_run(tmp_path / str(number), [digits_row(1, 1.0)], config)
        training_data.write(
            workdir, {"the same": {"fingerprint": "a"}, "others": {"fingerprint": "ab"[number]}}.get(data)
        )
    found = runs.read([str(tmp_path / "0"), str(tmp_path / "1")])
    named = {
        "the same": ["sgflow"],
        "others": ["data a, seed 0", "data b, seed 1"],
        "unknown": ["data dir /place0, seed 0", "data dir /place1, seed 1"],
    }
    assert [group.label for group in runs.groups(found)] == named[data]


def test_a_field_that_one_version_did_not_have_keeps_no_runs_apart(tmp_path):
    workdirs = [_run(tmp_path / name, "sgflow", k, [1.0]) for k, name in enumerate("ab")]
    file = tmp_path / "a" / "config.json"
    written = json.loads(file.read_text())
    del written["optim"]["decay_start"]
    file.write_text(json.dumps(written))
    assert len(runs.groups(runs.read(workdirs))) == 1


@pytest.mark.parametrize("change", ["nothing", "learning_rate", "a second run of the seed", "no configuration"])
def test_what_else_differs_keeps_runs_apart(change, tmp_path):
    workdirs = []
    for number in (0, 1):
        config = tiny.digits()
        config.seed = 0 if change == "a second run of the seed" else number
        if change == "learning_rate":
            config.optim.learning_rate = 1e-3 * (1 + number)
        written = None if change == "no configuration" else config
        workdirs.append(finished_run(tmp_path / str(number), [digits_row(1, 1.0)], written))
    assert len(runs.groups(runs.read(workdirs))) == (1 if change == "nothing" else 2)


def test_the_figure_of_a_sweep_has_one_line_for_them_and_its_table_one_for_each(found, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "distance_curve", lambda rows, labels: drawn.extend(labels))
    monkeypatch.setattr(summary, "png", lambda _: b"")
    rows = {run.workdir: run.rows for run in found}
    configs = {run.workdir: run.config.to_dict() for run in found}
    fid_sweep._tell(fid_sweep.Swept(rows, configs, [], {}), str(tmp_path / "out"))
    assert drawn == ["sgflow"] * 6 + ["mean_flow"] * 4
    table = (tmp_path / "out" / "fid_table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == sorted(run.label for run in found for _ in run.rows)
    drawn.clear()
    for run, images in zip(found, "aab", strict=False):
        training_data.write(run.workdir, {"fingerprint": images})
    fid_sweep._tell(fid_sweep.Swept(rows, configs, [], {}), str(tmp_path / "out"))
    assert list(dict.fromkeys(drawn)) == ["sgflow, data a", "sgflow, data b", "mean_flow"]
