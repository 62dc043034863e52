import io
import json
import sys

import numpy as np
import pytest
from tensorboardX import SummaryWriter

from sgflow_jax.metric_log import MetricLog

VALUES = {"loss": 0.5, "images_per_second": 120.0}


@pytest.mark.parametrize("terminal", [True, False])
def test_speaks_in_a_bar_on_a_terminal_and_in_lines_elsewhere(terminal, tmp_path, capsys, monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with MetricLog(str(tmp_path), 0, 10) as log:
        log.advance(1)
        log.scalars(1, {"loss": 0.25})  # the first line may have no speed yet
        log.advance(1)
        log.scalars(2, VALUES)
    out, err = capsys.readouterr().out, stream.getvalue()
    assert ("step 2: loss 0.5, images_per_second 120" in out) == (not terminal)
    assert ("loss 0.5, 120 images/s" in err) == terminal
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "loss": 0.25}, {"step": 2, **VALUES}]


def test_starting_again_drops_what_will_be_done_again(tmp_path):
    with MetricLog(str(tmp_path), 0, 10) as log:
        for step in (2, 4, 6):
            log.scalars(step, VALUES)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    with MetricLog(str(tmp_path), 4, 10) as log:
        log.scalars(6, VALUES)
    rows = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [2, 4, 6]


def test_a_preview_is_a_file_and_in_tensorboard(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(SummaryWriter, "add_image", lambda self, *args, **kwargs: shown.append(args[0]))
    with MetricLog(str(tmp_path), 0, 10) as log:
        log.preview(5, np.zeros((4, 4, 3), np.uint8))
    assert (tmp_path / "previews" / "step_0000005.png").exists() and shown == ["preview"]
