"""Shows what a program is doing, with a running clock, while it prints nothing else."""

import contextlib
import threading
import time
from collections.abc import Iterator

import jax

from sgflow_jax import terminal

_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_hits: list[str] = []
jax.monitoring.register_event_listener(lambda event, **_: _hits.append(event) if event == _CACHE_HIT else None)


class Clock:
    """seconds: duration of a finished phase. from_cache: whether JAX loaded a compiled program from its cache."""

    seconds: float = 0.0
    from_cache: bool = False


@contextlib.contextmanager
def phase(what: str) -> Iterator[Clock]:
    """Shows `what` and the seconds passed while the body runs. Only on the first process, if stderr is a terminal."""
    clock, over, began, hits = Clock(), threading.Event(), time.monotonic(), len(_hits)

    def tick():
        while not over.wait(0.5):
            terminal.overwrite(f"{what}, {time.monotonic() - began:.0f} s")

    thread = threading.Thread(target=tick, daemon=True)
    shown = not jax.process_index()
    if shown:
        terminal.overwrite(what)
        thread.start()
    try:
        yield clock
    finally:
        clock.seconds, clock.from_cache = time.monotonic() - began, len(_hits) > hits
        over.set()
        if shown:
            thread.join()
            terminal.overwrite("")
