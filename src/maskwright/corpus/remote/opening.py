"""Open a remote file as a raw stream that goes on after breaks and notices when the object changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...core.errors import DataError
from .http import HttpObject
from .objects import (
    BrokenOffError,
    ObjectStat,
    RemoteObject,
    Retry,
    changed_error,
    changed_since_listed_error,
    current_retry,
)
from .resuming import BLOCK_BYTES, ResumingReader
from .storage import StorageObject

__all__ = ["is_http", "open_object", "open_remote"]


def is_http(url: str) -> bool:
    """Whether an address names a file on a web server."""
    return url.lower().startswith(("http://", "https://"))


def open_object(url: str) -> RemoteObject:
    """The object at an address; nothing is asked of the storage yet.

    Raises:
        MissingDependencyError: the package for the storage is not installed.
        DataError: the protocol is not known.
    """
    return HttpObject(url) if is_http(url) else StorageObject(url)


@contextlib.contextmanager
def open_remote(
    url: str,
    *,
    version: str = "",
    start: int = 0,
    retry: Retry | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[ResumingReader]:
    """Open a remote file for reading.

    Args:
        url: its address.
        version: what the storage said when the file was listed; empty takes what is there.
        start: first position to read.
        retry: how to go on after a failure.
        block_bytes: how much to fetch at once.

    Yields:
        A raw file of the bytes as they are stored.

    Raises:
        DataError: it is missing, refused or out of reach, or it changed since it was listed. A change
            while reading shows when the block ends, so the error can come out of the `with` block.
    """
    retry = retry or current_retry()
    with contextlib.closing(open_object(url)) as remote:
        stat = retry.call(remote.stat, url)
        if version and stat.version != version:
            raise changed_since_listed_error(url)
        try:
            yield ResumingReader(remote, url, stat.num_bytes, retry, start, block_bytes)
        except Exception as error:
            # What looks like damage may be half of an old and half of a new version: say that.
            if _changed(remote, stat):
                raise changed_error(url) from error
            raise
        if retry.call(remote.stat, url).version != stat.version:
            raise changed_error(url)


def _changed(remote: RemoteObject, before: ObjectStat) -> bool:
    """Whether the object is surely another one by now."""
    try:
        return remote.stat().version != before.version
    except (BrokenOffError, DataError):
        return False
