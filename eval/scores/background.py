"""Work on the host while the devices compute: calls in one thread, in order."""

import collections
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Background:
    """Calls functions in order, in a thread; leaving the context waits for the running one and cancels the rest.

    limit: how many calls may be unfinished. For NumPy, which lets other threads run; only the caller may use JAX.
    """

    def __init__(self, limit: int):
        self._limit, self._pool, self._unfinished = limit, ThreadPoolExecutor(1), collections.deque()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable, *arguments) -> None:
        """Queues function(*arguments), once fewer than `limit` calls are unfinished. Raises what an earlier call
        raised."""
        self.wait(self._limit - 1)
        self._unfinished.append(self._pool.submit(function, *arguments))

    def wait(self, left: int = 0) -> None:
        """Waits until at most `left` calls are unfinished. Raises what a finished call raised."""
        while len(self._unfinished) > left:
            self._unfinished.popleft().result()
