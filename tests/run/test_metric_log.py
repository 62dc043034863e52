import io
import json
import struct
import sys

import ml_collections
import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from sgflow_jax.run.metric_log import MetricLog, summary
from sgflow_jax.run.tensorboard import TensorBoard
from tests.tiny import files_of_at_most


def _steps(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _events(file):
    """TensorBoard's framing: length, its checksum, the event, its checksum."""
    content, at = file.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        yield Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length


VALUES = {"loss": 0.5, "images_per_second": 120.0}


@pytest.mark.parametrize("terminal", [True, False])
def test_speaks_in_a_bar_on_a_terminal_and_in_lines_elsewhere(terminal, tmp_path, capsys, monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with MetricLog(str(tmp_path), 0, 10) as log:
        assert stream.getvalue() == ""  # no bar, and no forecast, before the first step
        log.begin(0)
        log.advance(1)
        log.scalars(1, {"loss": 0.25})  # the first line may have no speed yet
        log.advance(1)
        log.scalars(2, VALUES)
    out, err = capsys.readouterr().out, stream.getvalue()
    assert ("step 2 of 10: loss 0.5 120 img/s (0:00 to go)" in out) == (not terminal)
    assert ("loss 0.5 120 img/s" in err) == terminal
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "loss": 0.25}, {"step": 2, **VALUES}]


def test_what_tells_something_comes_before_the_loss():
    values = {
        "loss": -3.0,
        "diagonal_loss": 0.46,
        "residual_norm_sq": 0.02,
        "distance_4_classifier_2000": 6.7,
        "images_per_second": 1610,
    }
    assert summary(values) == "diag 0.46 resid 0.02 FD(4) 6.7 1,610 img/s"


def test_the_configuration_is_in_tensorboard_and_the_parameters_in_a_file(tmp_path):
    with MetricLog(str(tmp_path), 0, 10) as log:
        tree = {"optim": {"learning_rate": 0.5, "name": "adam"}, "data": {"flip": True}, "eval": {"steps": (1, 4)}}
        log.describe(ml_collections.ConfigDict(tree), "a table")
    (file,) = (tmp_path / "tensorboard").iterdir()
    values = {value.tag: value for event in _events(file) for value in event.summary.value}
    assert b'"learning_rate": 0.5' in values["config/text_summary"].tensor.string_val[0]
    plugin = values["_hparams_/session_start_info"].metadata.plugin_data
    found = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    kept = {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}
    assert plugin.plugin_name == "hparams"
    assert kept == {"optim.learning_rate": 0.5, "optim.name": "adam", "data.flip": True, "eval.steps": "(1, 4)"}
    assert isinstance(kept["data.flip"], bool)
    assert "_hparams_/experiment" not in values  # its list of fields, without metrics, would stand for all runs
    assert (tmp_path / "parameters.txt").read_text() == "a table\n"


def test_starting_again_drops_what_will_be_done_again(tmp_path):
    with MetricLog(str(tmp_path), 0, 10) as log:
        for step in (2, 4, 6):
            log.scalars(step, VALUES)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('\n[1]\n{"step": "3"}\n{"loss": 1}\n\x00{"step": 7, "lo')
    with MetricLog(str(tmp_path), 4, 10) as log:
        log.scalars(6, VALUES)
    assert _steps(tmp_path) == [2, 4, 6]


def test_going_back_forgets_later_steps_here_and_in_tensorboard(tmp_path):
    with MetricLog(str(tmp_path), 0, 10) as log:
        for step in (2, 4, 6):
            log.scalars(step, VALUES)
        log.event("rollback", 2, "back to step 2")
        log.rewind(2)
        log.scalars(4, VALUES)
    assert _steps(tmp_path) == [2, 4]
    (event,) = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert (event["event"], event["step"], event["what"]) == ("rollback", 2, "back to step 2")
    events = [event for file in sorted((tmp_path / "tensorboard").iterdir()) for event in _events(file)]
    assert [event.step for event in events if event.HasField("session_log")] == [1, 3]
    assert [(e.step, v.simple_value) for e in events for v in e.summary.value if v.tag == "loss"] == [
        *((step, 0.5) for step in (2, 4, 6, 4))
    ]


def test_a_full_disk_costs_no_line(tmp_path, capsys):
    with MetricLog(str(tmp_path), 0, 10) as log:
        for step in range(1, 4):
            log.scalars(step, VALUES)
        size = (tmp_path / "metrics.jsonl").stat().st_size
        with files_of_at_most(size + 20):
            log.scalars(4, VALUES)
            assert _steps(tmp_path) == [1, 2, 3]  # and no part of a line
        log.scalars(5, VALUES)
    assert _steps(tmp_path) == [1, 2, 3, 4, 5]
    assert "metrics.jsonl cannot be written" in capsys.readouterr().out
    with MetricLog(str(tmp_path), 5, 10) as log, files_of_at_most(size):
        log.scalars(6, VALUES)
        log.rewind(5)  # neither what waits nor what is written is lost
        log.scalars(6, VALUES)
    assert _steps(tmp_path) == [1, 2, 3, 4, 5, 6]  # there is space again as it closes
    with MetricLog(str(tmp_path), 5, 10) as log:
        with files_of_at_most(size):
            log.scalars(6, VALUES)
            log.scalars(8, VALUES)
            log.rewind(6)
        log.scalars(8, {"loss": 1.0})
    assert _steps(tmp_path) == [1, 2, 3, 4, 5, 6, 8]
    with MetricLog(str(tmp_path), 5, 10) as log, files_of_at_most(100):
        log.scalars(6, VALUES)
        log.preview(6, np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8))
    assert not (tmp_path / "previews" / "step_0000006.png").exists()
    assert "step_0000006.png cannot be written" in capsys.readouterr().out


def test_no_fault_of_tensorboard_ends_a_run(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    with MetricLog(str(tmp_path), 0, 10) as log:
        log.scalars(1, VALUES)
        with monkeypatch.context() as patch:
            for name in ("write_event", "flush", "close"):
                patch.setattr(EventsWriter, name, fail)
            log.scalars(2, VALUES)
            log.preview(2, np.zeros((4, 4, 3), np.uint8))
            log.rewind(2)
        log.scalars(3, VALUES)
    assert _steps(tmp_path) == [1, 2, 3]
    events = [event for file in (tmp_path / "tensorboard").iterdir() for event in _events(file)]
    assert sorted(e.step for e in events for v in e.summary.value if v.tag == "loss") == [1, 3]


def test_a_preview_is_a_file_and_in_tensorboard(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(TensorBoard, "image", lambda self, step, picture: shown.append((step, picture.shape)))
    with MetricLog(str(tmp_path), 0, 10) as log:
        log.preview(5, np.zeros((4, 4, 3), np.uint8))
    assert (tmp_path / "previews" / "step_0000005.png").exists() and shown == [(5, (4, 4, 3))]
