"""Work of the host beside that of the devices: calls one after the other, in a thread of their own."""

import collections
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Background:
    """Calls functions in the order they come, while the caller goes on; leaving waits for the one under way.

    limit: how many may be unfinished. For NumPy, which lets other threads run; JAX is the caller's alone.
    """

    def __init__(self, limit: int):
        self._limit, self._pool, self._unfinished = limit, ThreadPoolExecutor(1), collections.deque()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable, *arguments) -> None:
        """Calls function(*arguments) after those before, once fewer than `limit` are unfinished. Raises what one of
        them has raised."""
        self.wait(self._limit - 1)
        self._unfinished.append(self._pool.submit(function, *arguments))

    def wait(self, left: int = 0) -> None:
        """Until so many calls are left; raises what one of the others has raised."""
        while len(self._unfinished) > left:
            self._unfinished.popleft().result()
