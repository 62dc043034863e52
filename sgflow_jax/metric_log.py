"""Where a run's numbers go: metrics.jsonl, TensorBoard, and the terminal."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import tensorboardX
from tqdm import tqdm

from sgflow_jax import figures
from sgflow_jax import workdir as paths


class MetricLog:
    """The log of one run. Use as a context manager.

    start: the step the run (re)starts from; later lines, left by a run that was killed after its last checkpoint, go.
    total: the step it runs to. A progress bar where the terminal is one, plain lines otherwise.
    """

    def __init__(self, workdir: str, start: int, total: int):
        self._workdir = workdir
        file = paths.metrics_file(workdir)
        kept = [line for line in _rows(file) if json.loads(line)["step"] <= start]
        paths.write_atomically(file, "".join(kept))
        self._file = file.open("a")
        self._board = tensorboardX.SummaryWriter(str(file.parent / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(initial=start, total=total, unit="step", dynamic_ncols=True) if sys.stderr.isatty() else None

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(self, *_) -> None:
        if self._bar:
            self._bar.close()
        self._board.close()
        self._file.close()

    def advance(self, steps: int) -> None:
        """Moves the progress bar."""
        if self._bar:
            self._bar.update(steps)

    def say(self, line: str) -> None:
        """Prints a line without breaking the progress bar."""
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes the numbers of one step everywhere."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._bar:
            speed = f", {values['images_per_second']:.0f} images/s" if "images_per_second" in values else ""
            self._bar.set_postfix_str(f"loss {values['loss']:.4g}{speed}")
        else:
            self.say(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def preview(self, step: int, picture: np.ndarray) -> None:
        """Writes a picture uint8 [h, w, 3] as previews/step_N.png and to TensorBoard."""
        paths.write_atomically(paths.preview_file(self._workdir, step), figures.png(picture))
        self._board.add_image("preview", picture, step, dataformats="HWC")


class NoLog:
    """A `MetricLog` that says and writes nothing: for the processes of a run that are not its first."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_) -> None: ...

    def advance(self, steps: int) -> None: ...

    def say(self, line: str) -> None: ...

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def preview(self, step: int, picture: np.ndarray) -> None: ...


def _rows(file: Path) -> list[str]:
    """The whole lines of a log, without one that a kill cut short or that is damaged."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            json.loads(line)
            rows.append(line + "\n")
    return rows
