"""One piece of work at a time on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

__all__ = ["Background"]


class Background:
    """Runs work behind the main thread; the process may end without waiting for it."""

    def __init__(self) -> None:
        self._future: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin; what was begun before must have been taken."""
        assert self._future is None, "the work before was not taken"
        future: Future[None] = Future()

        def run() -> None:
            try:
                work()
                future.set_result(None)
            except BaseException as error:
                future.set_exception(error)

        self._future = future
        threading.Thread(target=run, name="checkpoint", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether there is work that has ended and was not taken."""
        return self._future is not None and self._future.done()

    def take(self) -> None:
        """Wait for the work, if there is any; its error is raised.

        An interrupt while waiting gives the work up: nobody waits for it again.
        """
        future, self._future = self._future, None
        if future is not None:
            future.result()
