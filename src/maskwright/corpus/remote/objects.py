"""What every kind of remote storage has to offer, and how its failures are told apart.

There are three kinds of failure. One that may pass (a broken connection, a time-out, a server that
is busy) raises `BrokenOffError` and is tried again with growing pauses. One that will not pass
(no such file, no right to it) raises `DataError` at once. An object that is no longer the one that
was listed raises `DataError` too, because a text made of two versions is worse than none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from ...core.errors import DataError
from ...core.log import get_logger

__all__ = [
    "BrokenOffError",
    "ObjectStat",
    "RemoteObject",
    "Retry",
    "changed_error",
    "changed_since_listed_error",
    "current_retry",
    "stat_of",
]

T = TypeVar("T")

_log = get_logger(__name__)
_FEW = 6

# What storages say about the content, the most telling first, and about its time.
_CONTENT_KEYS = ("ETag", "etag", "md5Hash", "md5", "blob_id", "sha256", "checksum")
_TIME_KEYS = ("LastModified", "Last-Modified", "last_modified", "mtime", "updated", "created")


class BrokenOffError(Exception):
    """A transfer that broke off and may be tried again.

    Args:
        reason: what happened.
        partial: the bytes that came before it happened.
        lasting: whether it is likely to stay so, so that a few attempts are enough for anybody.
    """

    def __init__(self, reason: str, partial: bytes = b"", *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.partial, self.lasting = partial, lasting


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a storage says about an object.

    Args:
        num_bytes: its size; None if the storage does not say.
        version: changes when the content does; empty if the storage says nothing to make it from.
        ranged: any stretch of bytes can be asked for, so that reading may start anywhere.
    """

    num_bytes: int | None
    version: str
    ranged: bool = True


def stat_of(facts: Mapping[str, Any], num_bytes: int | None, *, ranged: bool = True) -> ObjectStat:
    """Make a version from what a storage says.

    Args:
        facts: names and values in the words of the storage, such as `ETag`.
        num_bytes: the size, which becomes part of the version.
        ranged: see `ObjectStat`.
    """
    for keys in (_CONTENT_KEYS, _TIME_KEYS):
        values = [_plain(facts[key]) for key in keys if facts.get(key)]
        if values:
            break
    parts = [*values[:1], *([] if num_bytes is None else [str(num_bytes)])]
    return ObjectStat(num_bytes, "-".join(parts), ranged)


def _plain(value: Any) -> str:
    """A value as text, the same for a time in a listing and in an answer about one object."""
    return str(value.timestamp() if isinstance(value, datetime) else value).strip('"')


class RemoteObject(Protocol):
    """One object on one kind of storage. A Protocol, because web servers and `fsspec` share no base."""

    def stat(self) -> ObjectStat:
        """Ask the storage about the object as it is now."""
        ...

    def fetch(self, start: int, num_bytes: int) -> bytes:
        """Bytes from `start` on: as many as asked, fewer, or none at the end."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def changed_error(path: object) -> DataError:
    """The error for a file that is no longer what it was when the reading began."""
    return DataError(
        f"{path}: changed while it was read; wait until nothing writes it, then run the same command again"
    )


def changed_since_listed_error(path: object) -> DataError:
    """The error for a file that is no longer what it was when the inputs were listed."""
    return DataError(
        f"{path}: changed since this run listed its inputs; run the same command again with the file as "
        "it is now"
    )


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and after which pauses to try again what broke off.

    Args:
        attempts: how often something is tried before it counts as failed.
        first_delay_seconds: the first pause; each further one is twice as long.
        longest_delay_seconds: no pause is longer.
        patience_seconds: after how long nothing is tried again, whatever the number of attempts.
        error: what is raised then.
        hurried: asked every second of a pause; true gives up.
        sleep: makes the pause.
        clock: monotonic, in seconds.
    """

    attempts: float = _FEW
    first_delay_seconds: float = 1.0
    longest_delay_seconds: float = math.inf
    patience_seconds: float = math.inf
    error: type[DataError] = DataError
    hurried: Callable[[], bool] | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def call(self, do: Callable[[], T], place: str) -> T:
        """Do something until it succeeds.

        Args:
            do: raises `BrokenOffError` if it may be tried again.
            place: for messages: the address, and the position where there is one.

        Raises:
            DataError: every attempt failed, or another error where `error` says so.
        """
        failures, begun = 0, self.clock()
        while True:
            try:
                return do()
            except BrokenOffError as error:
                failures += 1
                most = min(self.attempts, _FEW) if error.lasting else self.attempts
                if failures >= most or not self._pause(failures, begun, place, error):
                    tried = f"{failures} time{'s' * (failures > 1)}"
                    raise (DataError if error.lasting else self.error)(
                        f"{place}: cannot be read ({error}), tried {tried}; check the address, the network "
                        "and the credentials, then run the same command again"
                    ) from error

    def _pause(self, failures: int, begun: float, place: str, error: Exception) -> bool:
        """Wait before the next attempt; whether there shall be one."""
        left = self.patience_seconds - (self.clock() - begun)
        if left <= 0:
            return False
        pause = min(self.first_delay_seconds * 2.0 ** min(failures - 1, 60), self.longest_delay_seconds, left)
        _log.warning("%s: %s; going on in %.3g s", place, error, pause)
        if self.hurried is None:
            self.sleep(pause)
            return True
        while pause > 0 and not self.hurried():
            self.sleep(min(pause, 1.0))
            pause -= 1.0
        return not self.hurried()


_RETRY = Retry()


def current_retry() -> Retry:
    """The pauses that hold where none are given."""
    return _RETRY
