"""A trace of some steps of a run, for TensorBoard's profile tab and for Perfetto."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from sgflow_jax.run import layout


class StepTrace:
    """Traces the steps from the first to the last of `steps`, or those of them that a run takes. Use as a context
    manager: leaving it, by an error too, writes what there is. Of several processes the first one does.

    steps: (first, last), or () for none. event(kind, step, line): told where the trace is; or that it could not be
    written, which is no reason for a run to end.
    """

    def __init__(self, steps: Sequence[int], workdir: str, event: Callable[[str, int, str], None]):
        self._steps = steps if jax.process_index() == 0 else ()
        self._folder, self._event = layout.tensorboard(workdir), event
        self._first: int | None = None  # step of the trace, while it is on
        self._step = 0

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(self, *_) -> None:
        if self._first is not None:
            self._write()

    def after(self, step: int, state: Any) -> None:
        """To be called when a run has given `step` steps to the device: before it gives more, and after each call.

        state: what the steps give, which is waited for where the trace begins and ends.
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
        except Exception as error:  # another profiler may be at work, or none can
            self._give_up(f"no trace from step {step + 1} could be begun", error)
        else:
            self._first = step + 1

    def _write(self) -> None:
        first, self._first = self._first, None
        try:
            jax.profiler.stop_trace()
            place = max(self._folder.glob("plugins/profile/*"))  # named by the time
        except Exception as error:  # of the disk, or of what the profiler found
            self._give_up(f"the trace from step {first} could not be written", error)  # nor would JAX begin another
        else:
            line = (
                f"a trace that began with step {first} is in {place}: see TensorBoard, or *.trace.json.gz in Perfetto"
            )
            self._event("profile", self._step, line)

    def _give_up(self, what: str, error: Exception) -> None:
        self._steps = ()
        self._event("profile", self._step, f"warning: {what} ({' '.join(str(error).split())})")
