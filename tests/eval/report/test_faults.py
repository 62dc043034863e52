"""A page is refused, naming the fault, or says what it lacks."""

import numpy as np
import pytest

from eval import report
from sgflow_jax.interfaces import InputError
from tests import tiny
from tests.rows import digits_row, finished_run


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("metrics.jsonl", b"5\n", "metrics.jsonl has an invalid line"),
        ("metrics.jsonl", b'{"loss": 1}\n', "metrics.jsonl has an invalid line"),
        ("metrics.jsonl", b'{"step": 1, "loss": null}\n', "metrics.jsonl has an invalid line"),
        ("metrics.jsonl", b"\xff\xfe", "metrics.jsonl cannot be read"),
        ("config.json", b"[]", "config.json is damaged"),
        ("config.json", b"\xff\xfe", "config.json is damaged"),
        ("eval/samples/step_4-fedcba987654-flow_map-1.npz", b"", "flow_map-1.npz is damaged"),
    ],
)
def test_damaged_files_are_named(name, content, match, tmp_path):
    images = np.zeros((3, 8, 8, 1), np.uint8)
    workdir = finished_run(tmp_path / "run", [digits_row(1, 1.0)], tiny.digits(), images)
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(InputError, match=match):
        report.write([workdir], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_examples_of_another_shape_are_rejected(tmp_path):
    for wrong in (np.zeros((3, 4, 4, 1), np.uint8), np.zeros((0, 8, 8, 1), np.uint8), np.zeros((3, 8, 8, 1))):
        workdir = finished_run(tmp_path / "run", [digits_row(1, 1.0)], tiny.digits(), wrong)
        with pytest.raises(InputError, match="is damaged"):
            report.write([workdir], str(tmp_path / "out"))


def test_a_config_of_another_version_affects_only_two_sections(tmp_path):
    workdir = finished_run(tmp_path / "run", [digits_row(1, 1.0)], tiny.digits())
    (tmp_path / "run" / "config.json").write_text("{}")
    report.write([workdir], str(tmp_path / "out"))
    assert "is unknown:" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    "second, match",
    [
        (None, "no measured rows: run python -m eval.fid_sweep --workdir=.*second first"),
        (
            digits_row(1, 1.0, reference=dict(data="cifar10")),
            "different data .cifar10, digits.: report them separately",
        ),
        (digits_row(1, 1.0, reference=dict(fingerprint="0")), "different examples of digits/train .fingerprints 0, "),
        (
            digits_row(1, 1.0, num_samples=50),
            "no kind of distance in common .first: FD-pixels-1k; second: FD-pixels, 50 sam",
        ),
    ],
)
def test_incomparable_runs_are_rejected(second, match, tmp_path):
    first = finished_run(tmp_path / "first", [digits_row(1, 1.0)])
    finished_run(tmp_path / "second", [] if second is None else [second])
    with pytest.raises(InputError, match=match):
        report.write([first, str(tmp_path / "second")], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_out_must_not_be_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file: give a directory"):
        report.write([finished_run(tmp_path / "run", [digits_row(1, 1.0)])], str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"
