"""Writes TensorBoard's files with tensorboardX, directly, one line of the log at a time. Its SummaryWriter writes in a
thread; a full disk ends that thread, and training would then wait for it."""

import itertools
import os
import time
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

_files = itertools.count()


class Board:
    """One file of events. purge: TensorBoard hides earlier files' values of this step and later ones.

    Methods raise OSError when writing fails; open a new Board then.
    """

    def __init__(self, directory: Path, purge: int):
        directory.mkdir(parents=True, exist_ok=True)
        # Else files of the same second and host would have the same name.
        self._writer = EventsWriter(str(directory / "events"), f".{os.getpid()}.{next(_files)}")
        self._write(Event(step=purge, file_version="brain.Event:2"))
        self._write(Event(step=purge, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the numbers of one step."""
        for name, value in values.items():
            self._write(Event(step=step, summary=summary.scalar(name, value)))
        self._writer.flush()

    def image(self, step: int, picture: np.ndarray) -> None:
        """Writes a picture, uint8 [h, w, 3]."""
        self._write(Event(step=step, summary=summary.image("preview", picture, dataformats="HWC")))
        self._writer.flush()

    def config(self, text: str, fields: dict[str, str]) -> None:
        """Writes a configuration: its JSON text, and its fields as hyper-parameters."""
        self._write(Event(step=0, summary=summary.text("config", f"```\n{text}\n```")))
        for part in summary.hparams(fields, {}):
            self._write(Event(step=0, summary=part))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
