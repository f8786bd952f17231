"""Data folders on object storage: the cache of `tokens`, reading as preparing a corpus reads.

Failures that may pass are tried again with growing pauses, going on at the byte that was reached.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.errors import DataError, OutOfReachError
from ..core.files import is_remote
from ..tokens.cache_config import CacheConfig
from ..tokens.remote_folder import open_data_folder
from ..tokens.shard_files import DataFolder
from .signals import asked_to_stop

if TYPE_CHECKING:
    from ..corpus.remote import Retry

__all__ = ["ObjectReader", "open_data", "patient_retry"]

_LONGEST_PAUSE_SECONDS = 30.0


def patient_retry(patience_seconds: float, closed: Callable[[], bool] = lambda: False) -> Retry:
    """How a run tries again what a storage did not do: until its time is up, or somebody asks it to stop.

    Args:
        patience_seconds: after how long it raises `OutOfReachError`.
        closed: whether nobody needs it any more.
    """
    from ..corpus.remote import Retry

    return Retry(
        attempts=math.inf,
        longest_delay_seconds=_LONGEST_PAUSE_SECONDS,
        patience_seconds=patience_seconds,
        error=OutOfReachError,
        hurried=lambda: closed() or asked_to_stop(),
    )


class ObjectReader:
    """Reads objects on any storage that `fsspec` knows, and on web servers.

    Attributes:
        retry: how to go on after a failure; None takes the pauses that hold for reading a corpus.
        closed: whether nothing is read any more.
    """

    def __init__(self, retry: Retry | None = None) -> None:
        self.retry, self.closed = retry, False

    def close(self) -> None:
        """Nothing is read any more."""
        self.closed = True

    def read(self, address: str, *, may_miss: bool = False) -> bytes | None:
        """A whole object.

        Args:
            address: of the object.
            may_miss: return None where there is none.

        Raises:
            DataError: it is missing, refused or out of reach.
        """
        from ..corpus.remote import open_remote

        try:
            with open_remote(address, retry=self.retry) as raw, io.BufferedReader(raw) as file:
                return file.read()
        except DataError as error:
            if may_miss and _is_missing(error):
                return None
            raise

    def read_range(self, address: str, start: int, num_bytes: int) -> bytes:
        """Some bytes of an object.

        Args:
            address: of the object.
            start: first byte.
            num_bytes: how many.

        Raises:
            DataError: it is missing, refused, out of reach, or ends before.
        """
        from ..corpus.remote import ResumingReader, open_object
        from ..corpus.remote.objects import current_retry

        with contextlib.closing(open_object(address)) as remote:
            raw = ResumingReader(
                remote, address, start + num_bytes, self.retry or current_retry(), start, num_bytes
            )
            with io.BufferedReader(raw) as file:
                return file.read(num_bytes)


def _is_missing(error: DataError) -> bool:
    """Whether the storage says that there is no such object; some say they refuse instead."""
    cause = error.__cause__
    return isinstance(cause, FileNotFoundError) or getattr(cause, "code", None) in (404, 410)


def open_data(address: str, config: CacheConfig, patience_seconds: float | None = None) -> DataFolder:
    """Open the data folder that a config names.

    Args:
        address: a path, or an address such as `s3://bucket/prepared`.
        config: how shards on object storage are fetched and kept.
        patience_seconds: how long a storage that does not answer is asked again, now and whenever something
            is read; None takes a few attempts.

    Raises:
        ShardError: there is no finished data at the address, or it is damaged.
        UserError: the storage cannot be reached or refuses, or the disk does.
    """
    reader = ObjectReader()
    if patience_seconds is not None and is_remote(address):
        reader.retry = patient_retry(patience_seconds, lambda: reader.closed)
    return open_data_folder(address, config, reader)
