import dataclasses
import io
import json
import threading

import pytest
from PIL import Image

from eval.features import inception
from eval.figure import png, svg
from eval.scores import plots, results
from sgflow_jax.interfaces import InputError
from tests.rows import row


def test_rows_survive_their_file(tmp_path):
    rows = [row(1, 0.123456789), row(10, 2.0, seed=3, class_counts=(1, 2, 3))]
    results.append(str(tmp_path), *rows)
    assert results.read(str(tmp_path)) == rows
    assert results.read(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    "line",
    [
        '{"steps": 1}',
        "[1]",
        "{",
        '{"more": 1, %s',
        '{"value": null, %s',
        '{"value": NaN, %s',
        '{"value": "a", %s',
        '{"steps": "1", %s',
        '{"class_counts": [1.5], %s',
    ],
)
def test_a_damaged_line_is_named(line, tmp_path):
    results.append(str(tmp_path), row(), row(2))
    file = tmp_path / "eval" / "fid.jsonl"
    first = file.read_text().splitlines()[0]
    if "%" in line:  # the same row with another value, or one more
        line = json.dumps(json.loads(first) | json.loads(line.replace(", %s", "}")))
    file.open("a").write(line + "\n")
    with pytest.raises(InputError, match="line 3.*remove it"):
        results.read(str(tmp_path))


def test_rows_of_another_version_are_left_out(tmp_path):
    """Whatever fields they have."""
    results.append(str(tmp_path), row(version=results.VERSION - 1), row(2))
    old = row(version=1).flat()
    del old["network_precision"]
    file = tmp_path / "eval" / "fid.jsonl"
    file.open("a").write(json.dumps({**old, "more": 1}) + "\n")
    assert results.read(str(tmp_path)) == [row(2)]
    before = set(file.read_text().splitlines())
    results.append(str(tmp_path), row(3))  # and are not lost to the version that measured them
    assert before < set(file.read_text().splitlines()) and results.read(str(tmp_path)) == [row(2), row(3)]


def test_a_row_has_its_precision_as_a_score_and_that_of_its_network():
    flat = row(network_precision="default").flat()
    assert (flat["precision"], flat["network_precision"]) == (0.7, "default")
    assert results.Row.from_flat(flat) == row(network_precision="default")
    assert len({results.examples_file("", row(network_precision=p).identity) for p in ("highest", "default")}) == 2
    assert "default precision" in results.table([row(network_precision="default")])


def test_rows_of_older_versions_have_no_guidance_and_no_labels(tmp_path):
    old = row(2).flat()
    for name in ("guidance", "guidance_interval", "labels"):
        del old[name]
    assert results.Row.from_flat(old) == row(2)
    file = tmp_path / "eval" / "fid.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(old) + "\n")
    results.append(str(tmp_path), row(2, 5.0), row(2, 6.0, labels="data"), row(2, 7.0, guidance=2.0))
    assert [each.scores.value for each in results.read(str(tmp_path))] == [1.0, 6.0, 7.0]
    del old["seed"]
    with pytest.raises(KeyError):
        results.Row.from_flat(old)


def test_a_row_tells_what_measured_it_and_is_the_same_row_for_it(tmp_path):
    other = dataclasses.replace(row(), origin=results.Origin("0.1.0"))
    results.append(str(tmp_path), other)
    results.append(str(tmp_path), row())  # an older version does not say
    (found,) = results.read(str(tmp_path))
    assert found == other and found.flat()["sgflow_jax"] == "0.1.0"
    assert [*plots.series([("a", row()), ("a", other)])] == ["a"] and other.kind == row().kind
    old = row().flat()
    del old["sgflow_jax"]
    assert results.Row.from_flat(old) == row()


def test_guidance_and_labels_are_told_where_they_are_unusual():
    plain = row(4)
    some = [row(4, guidance=1.5, guidance_interval="0.2-0.8", labels="data"), row(4, labels="data"), plain]
    assert [results.examples_file("", each.identity).name for each in some] == [
        "step_100-fedcba987654-flow_map-4-labels_data-guidance_1.5-0.2-0.8.npz",
        "step_100-fedcba987654-flow_map-4-labels_data.npz",
        "step_100-fedcba987654-flow_map-4.npz",
    ]
    cells = [results.columns()["sampling"](each) for each in some]
    assert cells == [
        "flow_map, uniform, seed 0, guidance 1.5 at times 0.2-0.8, labels as in the data",
        "flow_map, uniform, seed 0, labels as in the data",
        "flow_map, uniform, seed 0",
    ]
    assert [*plots.series([("a", each) for each in some])] == [
        "a (guidance 1.5 at times 0.2-0.8, labels as in the data)",
        "a (labels as in the data)",
        "a",
    ]


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "eval").mkdir()
    file = tmp_path / "eval" / "fid.jsonl"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="fid.jsonl cannot be read"):
        results.read(str(tmp_path))
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match="fid.jsonl cannot be read"):
        results.read(str(tmp_path))


def test_rows_of_a_network_that_is_no_more_go(tmp_path):
    kept = [row(seed=1, checkpoint_step=7, network="b"), row(parameters="raw", network="c")]
    results.append(str(tmp_path), row(1), row(2), *kept)
    results.append(str(tmp_path), row(4, network="new"))
    assert results.read(str(tmp_path)) == [*kept, row(4, network="new")]


def test_an_identity_is_there_once(tmp_path):
    """Two sweeps at once measure the same: the second row is not kept, and would not be counted."""
    results.append(str(tmp_path), row(1, 0.5))
    results.append(str(tmp_path), row(1, 0.7), row(2))
    file = tmp_path / "eval" / "fid.jsonl"
    assert len(file.read_text().splitlines()) == 2
    file.open("a").write(json.dumps(row(1, 0.9).flat()) + "\n")  # as earlier versions wrote it
    assert results.read(str(tmp_path)) == [row(1, 0.5), row(2)]


def test_what_another_sweep_adds_is_never_lost(tmp_path, monkeypatch):
    """Rows are read and written under one lock, also where a sweep only tries whether it can write."""
    results.append(str(tmp_path), row(1))
    read, other = results._read, threading.Thread(target=results.append, args=(str(tmp_path), row(2)))

    def slow(workdir):
        found = read(workdir)
        if not other.ident:
            other.start()
            other.join(0.2)  # it would be done by now, if nothing held it up
        return found

    monkeypatch.setattr(results, "_read", slow)
    results.check_writable(str(tmp_path))
    other.join()
    assert results.read(str(tmp_path)) == [row(1), row(2)]


def test_a_table_of_several_runs_has_a_column_for_them():
    text = results.table([row(), row(value=9.0)], ["a", "b"])
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| a", "| b"]


def test_fid_is_the_name_of_one_distance_and_its_count():
    public = {"features": "inception", "weights": inception.SHA256[:12], "resize": "tf1"}
    names = {
        "FID-50k": row(num_samples=50_000, **public),
        "FID-10k": row(num_samples=10_000, **public),
        "FID, 49,999 samples": row(num_samples=49_999, **public),
        "FID (half-pixel)-50k": row(num_samples=50_000, **{**public, "resize": "half_pixel"}),
        "FD-Inception (weights 0123)-50k": row(num_samples=50_000, features="inception", weights="0123", resize="tf1"),
        "FD-EfficientNet-50k": row(num_samples=50_000, features="efficientnet_lite0", weights="579344248a93"),
        "FD-classifier-2k": row(features="classifier", weights="ab"),
        "FD-pixels-2k": row(),
    }
    assert {results.name(each.identity): each for each in names.values()} == names


def test_files_of_examples_differ_with_what_they_are_of():
    rows = [
        row(),
        row(2),
        row(seed=1),
        row(grid="cosine"),
        row(grid="0,0.4,1"),
        row(parameters="raw"),
        row(checkpoint_step=5),
    ]
    rows += [row(method="euler"), row(network="other")]
    assert len({results.examples_file("run", each.identity) for each in rows}) == len(rows)
    assert results.examples_file("run", row(4).identity).name == "step_100-fedcba987654-flow_map-4.npz"


def test_table_orders_steps_as_numbers_within_a_series():
    text = results.table([row(10, 1.0), row(2, 2.0), row(1, 3.0, seed=1), row(100, 0.5)])
    column = text.splitlines()[0].split(" | ").index("steps")
    assert [line.split(" | ")[column] for line in text.splitlines()[2:]] == ["2", "10", "100", "1"]


def test_table_tells_the_whole_identity():
    line = results.table([row(4, 2.0, class_counts=(3, 5), features="inception", weights="abc", resize="half_pixel")])
    cells = line.splitlines()[2].strip("| ").split(" | ")
    assert cells == [
        "sgflow",
        "4",
        "FD-Inception (weights abc) (half-pixel)-2k",
        "2 ± 0.1",
        "0.9",
        "0.01 ± 0.002",
        "0.7",
        "0.6",
        "flow_map, uniform, seed 0",
        "step 100, ema (fedcba987654)",
        "1,797 of digits/train (0123456789ab), inception (abc, half_pixel)",
        "3 5",
    ]


def _lines(figure):
    return [
        (line.get_label(), list(map(float, line.get_xdata())), list(map(float, line.get_ydata())))
        for ax in figure.axes
        for line in ax.get_lines()
    ]


def test_curve_has_a_line_for_each_series():
    rows = [row(1, 3.0), row(10, 1.0), row(1, 5.0, seed=1), row(10, 1.0, seed=1), row(1, 9.0, objective="psd")]
    lines = _lines(plots.distance_curve(rows))
    assert lines == [("sgflow", [1, 10], [4, 1]), ("psd", [1], [9])]
    lines = _lines(plots.distance_curve([row(), row(2, checkpoint_step=7, method="euler")]))
    assert [label for label, _, _ in lines] == ["sgflow (flow_map, 100)", "sgflow (euler, 7)"]


def test_long_names_lie_beside_the_curves():
    rows = [row(1, 3.0), row(10, 1.0)]
    plain, wide = (plots.distance_curve(rows, [name] * 2) for name in ("short", "a name of many words " * 6))
    assert wide.get_figwidth() > plain.get_figwidth()
    wide.canvas.draw()
    (ax,) = wide.axes
    legend = ax.get_legend()
    assert "\n" in legend.get_texts()[0].get_text()
    assert legend.get_window_extent().x0 >= ax.get_window_extent().x1


def test_different_distances_do_not_share_a_panel():
    figure = plots.distance_curve([row(), row(features="classifier"), row(fingerprint="ffff"), row(num_samples=1000)])
    assert len(figure.axes) == 4
    with Image.open(io.BytesIO(png(figure))) as picture:
        assert picture.format == "PNG"


def test_the_same_figure_gives_the_same_bytes():
    first, second = (svg(plots.distance_curve([row(1, 2.0), row(4, 1.0)])) for _ in range(2))
    assert first == second and first.startswith(b"<?xml") and b"<dc:date>" not in first
