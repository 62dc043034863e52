"""How long a run takes, over all its stretches."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Seconds of a run. wall: with compiling, previews and checkpoints. device: of training steps alone, times the
    number of devices. Both continue from the values of an earlier stretch of the run."""

    def __init__(self, wall: float = 0.0, device: float = 0.0, devices: int = 1):
        self._began = time.perf_counter() - wall
        self._device, self._devices = device, devices
        self._since: float | None = None  # when steps were last counted; None while no step is taken

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._began

    @property
    def device(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._device + self._devices * running

    def start(self) -> None:
        """Steps are taken from now on."""
        self._device, self._since = self.device, time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time of the body is not that of steps."""
        self._device, self._since = self.device, None
        try:
            yield
        finally:
            self.start()
