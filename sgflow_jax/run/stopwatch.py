"""Measures the time of a run across restarts."""

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Seconds of a run. wall: includes compiling, previews and checkpoints. device: training steps alone, times the
    number of devices. Both continue from the values before a restart."""

    def __init__(self, wall: float = 0.0, device: float = 0.0, devices: int = 1):
        self._began = time.perf_counter() - wall
        self._device, self._devices = device, devices
        self._since: float | None = None  # start of the current training steps; None while paused

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._began

    @property
    def device(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._device + self._devices * running

    def start(self) -> None:
        """Starts the device clock: training steps follow."""
        self._device, self._since = self.device, time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the device clock during the body."""
        self._device, self._since = self.device, None
        try:
            yield
        finally:
            self.start()
