"""A remote object as a raw file: fetched in blocks, going on at the same byte when a connection breaks.

Blocks are whole in memory before they are read, so no connection waits while documents are cleaned.
Memory: one block.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ...core.log import get_logger
from .objects import BrokenOffError, RemoteObject, Retry

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["BLOCK_BYTES", "ResumingReader"]

BLOCK_BYTES = 1 << 23

_log = get_logger(__name__)


class ResumingReader(io.RawIOBase):
    """Bytes of a remote object from any position on.

    Args:
        remote: where they come from.
        name: its address, for messages.
        num_bytes: its size; None if unknown, then the end is where the storage says so.
        retry: how to go on after a failure.
        start: first position to read.
        block_bytes: how much to fetch at once.
    """

    def __init__(
        self,
        remote: RemoteObject,
        name: str,
        num_bytes: int | None,
        retry: Retry,
        start: int = 0,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        super().__init__()
        self._remote, self._name, self._num_bytes, self._retry = remote, name, num_bytes, retry
        self._position, self._block_bytes = start, block_bytes
        self._block = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: where the storage knows no ranges, what lies before a position is skipped."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as the current block reaches; 0 at the end."""
        target = memoryview(buffer).cast("B")
        if not self._block:
            self._block = memoryview(self._retry.call(self._fetch, f"{self._name} at byte {self._position}"))
        count = min(len(target), len(self._block))
        target[:count] = self._block[:count]
        self._block = self._block[count:]
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position, counted from the start, from here, or from the end where the size is known."""
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}
        base = bases[whence]
        if base is None:
            raise io.UnsupportedOperation(f"{self._name}: the server does not say how long it is")
        target = max(0, base + offset)
        ahead = target - self._position
        self._block = self._block[ahead:] if 0 <= ahead <= len(self._block) else memoryview(b"")
        self._position = target
        return target

    def tell(self) -> int:
        """The position that is read next."""
        return self._position

    def _fetch(self) -> bytes:
        wanted = self._block_bytes
        if self._num_bytes is not None:
            wanted = min(wanted, self._num_bytes - self._position)
            if wanted <= 0:
                return b""
        try:
            data = self._remote.fetch(self._position, wanted)
        except BrokenOffError as error:
            if not error.partial:
                raise
            reached = self._position + len(error.partial)
            _log.warning("%s: %s at byte %d; going on from there", self._name, error, reached)
            return error.partial
        if not data and self._num_bytes is not None:
            raise BrokenOffError("the transfer ended before the end of the file", lasting=True)
        return data
