"""Traces some steps of a run, for TensorBoard's profile tab and Perfetto."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from sgflow_jax.run import layout


class StepTrace:
    """Traces a range of steps. Use as a context manager: leaving it, also by an error, writes the trace. With several
    processes only the first one traces.

    steps: (first, last), or () for none. event(kind, step, line): called with the place of the trace, or with the fault
    if it could not be written, for which the run does not end.
    """

    def __init__(self, steps: Sequence[int], workdir: str, event: Callable[[str, int, str], None]):
        self._steps = steps if jax.process_index() == 0 else ()
        self._folder, self._event = layout.tensorboard(workdir), event
        self._first: int | None = None  # first step of the running trace
        self._step = 0

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(self, *_) -> None:
        if self._first is not None:
            self._write()

    def after(self, step: int, state: Any) -> None:
        """Call with the number of steps dispatched so far: before the first step, and after each call.

        state: result of the steps; waited for where the trace begins and ends.
        """
        is_on = self._first is not None
        self._step = step
        if bool(self._steps and self._steps[0] - 1 <= step < self._steps[1]) == is_on:
            return
        jax.block_until_ready(state)
        if is_on:
            self._write()
            return
        try:
            jax.profiler.start_trace(self._folder)
        except Exception as error:  # another profiler may be running, or none may work here
            self._give_up(f"no trace from step {step + 1} could be started", error)
        else:
            self._first = step + 1

    def _write(self) -> None:
        first, self._first = self._first, None
        try:
            jax.profiler.stop_trace()
            place = max(self._folder.glob("plugins/profile/*"))  # named by the time
        except Exception as error:  # from the disk, or from the profiler
            self._give_up(f"the trace from step {first} could not be written", error)  # JAX could not start another
        else:
            line = f"wrote a trace from step {first} to {place}: open it in TensorBoard, or *.trace.json.gz in Perfetto"
            self._event("profile", self._step, line)

    def _give_up(self, what: str, error: Exception) -> None:
        self._steps = ()
        self._event("profile", self._step, f"warning: {what} ({' '.join(str(error).split())})")
