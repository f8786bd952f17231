"""Stop at the next safe place when asked to, instead of in the middle of a step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["StopRequest", "asked_to_stop", "stop_on_signals"]

_heard: list[StopRequest] = []


class StopRequest:
    """Whether somebody asked the run to stop, and how."""

    def __init__(self) -> None:
        self.reason: str | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT, SIGTERM or SIGUSR1 into a request; a second SIGINT stops at once.

    Outside the main thread signals cannot be caught, and the request is never made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    _heard.append(request)

    def handle(number: int, frame: FrameType | None) -> None:
        if request.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.reason = signal.Signals(number).name

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, handle) for number in watched}
    try:
        yield request
    finally:
        _heard.remove(request)
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_to_stop() -> bool:
    """Whether a signal came to a run that goes on in this process.

    What waits for something far away asks this; signals belong to the process, so it may be anywhere.
    """
    return any(request.reason is not None for request in _heard)
