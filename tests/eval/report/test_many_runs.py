"""Several runs on one page: what tells them apart."""

import json

import numpy as np

from eval import report
from sgflow_jax import __version__
from sgflow_jax.devices import provenance
from tests import html_page, tiny
from tests.rows import digits_row, finished_run


def test_runs_are_compared_by_fields_devices_and_hours(tmp_path):
    workdirs = []
    for name, rate in (("one", 1e-3), ("two", 2e-3)):
        config = tiny.digits()
        config.optim.learning_rate = rate
        workdirs.append(finished_run(tmp_path / name, [digits_row(1, 2.0)], config))
        log = [
            {
                "step": n,
                "loss": 1.0,
                "wall_seconds": 900.0 * n,
                "device_seconds": 3600.0 * n,
                "distance_4_pixels_500": 9.0 / n,
            }
            for n in (1, 2)
        ]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    start = {"event": "start", "step": 0, **provenance.describe([])}  # as written by training
    start |= {"device_kind": "TPU v5", "devices": 4, "commit": "0123456789abcdef", "dirty": True}
    (tmp_path / "one" / "events.jsonl").write_text(
        json.dumps(start) + "\n" + json.dumps({**start, "devices": 8}) + "\n"
    )
    (tmp_path / "two" / "events.jsonl").write_text('{"event": "start", "step": 0}\n{"half')
    report.write(workdirs, str(tmp_path / "out"))
    assert html_page.tables(tmp_path / "out")[1] == [
        ["field", "lr 0.001", "lr 0.002"],
        ["optim.learning_rate", "0.001", "0.002"],
        ["steps trained", "2", "2"],
        ["hours", "0.5", "0.5"],
        ["device hours", "2", "2"],
        ["devices", "4 TPU v5, then 8 TPU v5", "–"],
        ["processes", "1", "–"],
        ["code", f"{__version__} 0123456789ab (changed)", "–"],
    ]
    alts = [image["alt"] for image in html_page.seen(tmp_path / "out").all("img")]
    for axis in ("training step", "hours"):
        expected = "one line per run. lr 0.001: 4.5 at the end; lr 0.002: 4.5 at the end."
        assert f"FD-pixels, 500 samples, in 4 steps while training, against {axis}, {expected}" in alts
    assert not any(alt.startswith(("wall", "device", "distance 4")) for alt in alts)


def test_special_characters_in_names_are_escaped(tmp_path):
    names = ["$\\x$", "_hidden", "a <b> & c", "run 1", "run_1"]
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1)).astype(np.uint8)
    workdirs = [
        finished_run(tmp_path / name, [digits_row(n, 1.0) for n in (1, 2)], tiny.digits(), images) for name in names
    ]
    report.write(workdirs, str(tmp_path / "out"))
    seen = html_page.seen(tmp_path / "out")
    assert all(any(name in word for word in seen.words) for name in names)
    assert len(list((tmp_path / "out").glob("neighbours_*.png"))) == len(names)


def test_runs_of_one_objective_are_kept_apart_and_missing_data_is_reported(tmp_path):
    rows = [digits_row(2, 3.25), digits_row(4, 1.5)]
    workdirs = [finished_run(tmp_path / "first", rows), finished_run(tmp_path / "second", rows)]
    report.write(workdirs, str(tmp_path / "out"))
    seen = html_page.seen(tmp_path / "out")
    text = " ".join(" ".join(seen.words).split())
    for sentence in (
        "2 runs on digits (first; second), 4 measured rows.",
        "No log (metrics.jsonl) from first; second.",
        "No stored examples of first in 2 steps; second in 2 steps; first in 4 steps; second in 4 steps.",
        "no run has a config.json",
        "The cost of first is unknown: there is no config.json.",
    ):
        assert sentence in text
    assert [image["alt"] for image in seen.all("img")] == [
        "FD-pixels-1k against the number of sampling steps, one line per run. "
        "first: 3.25 in 2 steps, 1.5 in 4 steps; second: 3.25 in 2 steps, 1.5 in 4 steps."
    ]
