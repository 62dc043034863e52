"""Writes TensorBoard's files with tensorboardX, directly, one line of the log at a time. Its SummaryWriter writes in a
thread; a full disk ends that thread, and training would then wait for it."""

import contextlib
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from sgflow_jax.config import fields

_files = itertools.count()


class TensorBoard:
    """A `mirror.Mirror`. start: step from which the log goes on; TensorBoard hides later values of earlier files.

    What cannot be written is left out, and the next line opens a new file.
    """

    def __init__(self, directory: Path, start: int):
        self._directory, self._purge = directory, start + 1
        self._writer: EventsWriter | None = None

    def config(self, config: dict[str, Any]) -> None:
        text = f"```\n{json.dumps(config, indent=2)}\n```"
        plain = (str, bool, int, float)
        flat = {name: v if isinstance(v, plain) else str(v) for name, v in fields.flatten(config).items()}
        # Only the values: TensorBoard then lists the fields of all runs in its directory, and every scalar as a metric.
        # Of a description of the experiment beside them it would take that of the first run for all.
        _, values, _ = summary.hparams(flat, {})
        self._write(0, summary.text("config", text), values)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._write(step, *(summary.scalar(name, value) for name, value in values.items()))

    def image(self, step: int, picture: np.ndarray) -> None:
        self._write(step, summary.image("preview", picture, dataformats="HWC"))

    def rewind(self, step: int) -> None:
        self.close()
        self._purge = step + 1

    def close(self, failed: bool = False) -> None:
        with contextlib.suppress(Exception):  # as in `_write`
            if self._writer is not None:
                self._writer.close()
        self._writer = None

    def _write(self, step: int, *parts: Summary) -> None:
        try:
            if self._writer is None:
                self._writer = self._opened()
            for part in parts:
                self._writer.write_event(Event(step=step, summary=part, wall_time=time.time()))
            self._writer.flush()
        except Exception:  # tensorboardX raises any kind, and a run must not end for it
            self._writer = None

    def _opened(self) -> EventsWriter:
        self._directory.mkdir(parents=True, exist_ok=True)
        # Else files of the same second and host would have the same name; TensorBoard reads them in the order of names.
        writer = EventsWriter(str(self._directory / "events"), f".{os.getpid()}.{next(_files):06d}")
        for facts in ({"file_version": "brain.Event:2"}, {"session_log": SessionLog(status=SessionLog.START)}):
            writer.write_event(Event(step=self._purge, wall_time=time.time(), **facts))
        return writer
