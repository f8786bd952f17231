"""Shards on object storage, read through the local cache.

Order is a permutation over all shards of a split, so a step touches about as many places as it has samples.
Token files (and bits of words) are therefore fetched in blocks, those of the coming steps in the background;
files that are searched (ends of documents and sentences) are fetched whole. A file's checksum is compared
when all of its blocks are there, or, if asked for, before its first use. From then on the digest of every
block is known, and one that is fetched again later is compared on arrival. Damage is fetched once more, then
refused by name. What the blocks were used for before their file was whole is not taken back.

Cost: while the cache holds the split, each byte is fetched once; beyond that a block a sample.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..core.errors import ShardError, StorageError, UserError
from ..core.files import write_bytes
from ..core.inventory import FileEntry
from ..core.log import get_logger
from .cache_config import CacheConfig
from .manifest import REMEDY
from .shard_cache import BlockKey, ShardCache, block_digest
from .shard_files import ByteRange, map_file

__all__ = ["RemoteColumn", "RemoteFiles", "RemoteReader"]

log = get_logger(__name__)


class RemoteReader(Protocol):
    """Reads objects by their addresses. A seam: how storages are spoken to is no matter of tokens."""

    def read(self, address: str, *, may_miss: bool = False) -> bytes | None:
        """A whole object; None where it may miss and does."""
        ...

    def read_range(self, address: str, start: int, num_bytes: int) -> bytes:
        """Some bytes of an object; fewer where it ends."""
        ...

    def close(self) -> None:
        """Nothing is read any more: what waits for a storage gives up."""
        ...


class RemoteColumn:
    """A file of numbers on object storage, read by slices.

    Args:
        files: gives its bytes.
        entry: which file.
        dtype: of its numbers.
    """

    def __init__(self, files: RemoteFiles, entry: FileEntry, dtype: np.dtype[Any]) -> None:
        self._files, self._entry, self._dtype = files, entry, dtype

    def __len__(self) -> int:
        return self._entry.num_bytes // self._dtype.itemsize

    def __getitem__(self, part: slice, /) -> npt.NDArray[Any]:
        """Some neighbouring numbers; the blocks that hold them are fetched if they are not here."""
        start, stop, step = part.indices(len(self))
        assert step == 1
        size = self._dtype.itemsize
        return np.frombuffer(
            self._files.read(self._entry, start * size, max(start, stop) * size), self._dtype
        )


class RemoteFiles:
    """The files of a data folder on object storage.

    Args:
        address: of the data folder.
        folder: local folder for files that are fetched whole.
        reader: reads objects.
        cache: keeps blocks.
        config: how to fetch and check.
    """

    def __init__(
        self, address: str, folder: Path, reader: RemoteReader, cache: ShardCache, config: CacheConfig
    ) -> None:
        self.address, self.folder, self.cache, self.config = address, folder, cache, config
        self._reader = reader
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="shards")
        self._guard = threading.RLock()
        self._under_way: dict[BlockKey, Future[bytes]] = {}
        self._file_locks: dict[str, threading.RLock] = {}
        self._sums: dict[str, list[bytes]] = {}
        self._refused: dict[str, ShardError] = {}
        self._expected: deque[frozenset[BlockKey]] = deque(maxlen=config.steps_ahead + 1)
        self._told_full = self._closed = False

    def require(self, entries: Iterable[FileEntry]) -> None:
        """Nothing: asking for every object takes long, and a missing one is named when it is fetched."""

    def column(self, entry: FileEntry, dtype: np.dtype[Any]) -> RemoteColumn:
        """A file of which short ranges are read, block by block."""
        return RemoteColumn(self, entry, dtype)

    def array(self, entry: FileEntry, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """A file that is searched; fetched whole, unless it was before.

        Raises:
            ShardError: what arrives is not what the manifest says.
            StorageError: the disk refused.
            UserError: the object cannot be read.
        """
        path = self.folder / entry.path
        with self._lock_of(entry):
            if not self._is_whole(entry, path):
                self._fetch_whole(entry, path)
        return map_file(path, dtype)

    def verify(self, entries: Iterable[FileEntry]) -> None:
        """Compare the checksum of every file, which fetches what is not here.

        Raises:
            ShardError: a file is not what the manifest says.
        """
        for entry in entries:
            self._check_whole(entry)

    def read(self, entry: FileEntry, start: int, stop: int) -> bytes:
        """Bytes of a file, from the cache or the storage.

        Args:
            entry: which file.
            start: first byte.
            stop: byte behind the last one.

        Raises:
            ShardError: the file is not what the manifest says.
            UserError: the object cannot be read.
        """
        size = self.cache.block_bytes
        numbers = range(start // size, -(-stop // size)) if stop > start else range(0)
        pieces = (
            self._part(entry, number, max(0, start - number * size), min(size, stop - number * size))
            for number in numbers
        )
        return b"".join(pieces)

    def expect(self, parts: Sequence[ByteRange], *, keep: bool = True) -> None:
        """Fetch in the background what a coming step reads, and keep it until that step is past.

        Args:
            parts: what one step reads.
            keep: whether the blocks must stay while the `steps_ahead` next steps are told of.

        Raises:
            StorageError: the cache is too small for what the coming steps read.
        """
        wanted = {BlockKey(entry.sha256, number): entry for entry, number in self._blocks_of(parts)}
        with self._guard:
            if keep:
                self._expected.append(frozenset(wanted))
            held = len(frozenset[BlockKey]().union(*self._expected)) * self.cache.block_bytes
        if held > self.cache.most_bytes:
            raise StorageError(
                f"{self.cache.folder}: cache.most_bytes is {self.cache.most_bytes}, but the coming "
                f"{len(self._expected)} steps read blocks of {held} bytes; raise it, or lower "
                "cache.steps_ahead or cache.block_bytes"
            )
        for key, entry in wanted.items():
            if not self.cache.touch(key) and not self._closed:
                self._pool.submit(self._fetch_ahead, entry, key)

    def close(self) -> None:
        """Give up what is not fetched yet."""
        self._closed = True
        self._reader.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _blocks_of(self, parts: Sequence[ByteRange]) -> Iterator[tuple[FileEntry, int]]:
        size = self.cache.block_bytes
        for entry, start, stop in parts:
            for number in range(start // size, -(-min(stop, entry.num_bytes) // size)):
                yield entry, number

    def _fetch_ahead(self, entry: FileEntry, key: BlockKey) -> None:
        try:
            self._part(entry, key.number, 0, 0)
        except UserError as error:  # who needs the block meets it again, and can say so
            log.debug("%s: not fetched ahead (%s)", entry.path, error)

    def _part(self, entry: FileEntry, number: int, start: int, stop: int) -> bytes:
        if entry.path in self._refused:
            raise self._refused[entry.path]
        if self.config.verify == "before-use" and self._known_sums(entry) is None:
            self._check_whole(entry)
        key = BlockKey(entry.sha256, number)
        found = self.cache.read(key, start, stop)
        if found is not None:
            return found
        data = self._once(entry, key)
        if self.cache.numbers(entry.sha256) >= set(range(self._count(entry))):
            self._check_whole(entry)
        return data[start:stop]

    def _once(self, entry: FileEntry, key: BlockKey) -> bytes:
        """Fetch a block, or wait for the thread that does."""
        with self._guard:
            waiting = self._under_way.get(key)
            if waiting is None:
                mine = self._under_way[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            data = self._fetch(entry, key)
            mine.set_result(data)
            return data
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._guard:
                del self._under_way[key]

    def _fetch(self, entry: FileEntry, key: BlockKey) -> bytes:
        first = key.number * self.cache.block_bytes
        size = min(self.cache.block_bytes, entry.num_bytes - first)
        sums = self._known_sums(entry)
        for is_last in (False, True):
            data = self._reader.read_range(self._address(entry), first, size)
            if len(data) != size:
                raise ShardError(
                    f"{self._address(entry)}: ends at byte {first + len(data)}, the manifest says "
                    f"{entry.num_bytes}; {REMEDY}"
                )
            if sums is None or block_digest(data) == sums[key.number]:
                break
            where = f"{self._address(entry)}: bytes {first} to {first + size} came damaged"
            if is_last:
                raise ShardError(f"{where}, also when fetched once more; {REMEDY}")
            log.warning("%s; fetched once more", where)
        self._keep(key, data)
        return data

    def _keep(self, key: BlockKey, data: bytes) -> None:
        with self._guard:
            keep = frozenset[BlockKey]().union(*self._expected)
        try:
            self.cache.write(key, data, keep)
        except StorageError as error:
            # Training can go on from memory; it is only slower.
            if not self._told_full:
                log.warning("%s; blocks are read from the storage each time until there is room", error)
            self._told_full = True

    def _check_whole(self, entry: FileEntry) -> None:
        """Compare the checksum of a file, once; keep the digests of its blocks if it is right."""
        with self._lock_of(entry):
            if self._known_sums(entry) is not None:
                return
            for is_last in (False, True):
                digest, sums = hashlib.sha256(), []
                for number in range(self._count(entry)):
                    key = BlockKey(entry.sha256, number)
                    data = self.cache.read(key, 0, self.cache.block_bytes)
                    data = self._once(entry, key) if data is None else self._cut(entry, number, data)
                    digest.update(data)
                    sums.append(block_digest(data))
                if digest.hexdigest() == entry.sha256:
                    self._sums[entry.sha256] = sums
                    self.cache.keep_sums(entry.sha256, sums)
                    return
                self.cache.drop(entry.sha256)
                if not is_last:
                    log.warning(
                        "%s: came damaged (SHA-256 %s); fetched once more",
                        self._address(entry),
                        digest.hexdigest(),
                    )
            self._refused[entry.path] = self._damaged(entry, digest.hexdigest())
            raise self._refused[entry.path]

    def _cut(self, entry: FileEntry, number: int, data: bytes) -> bytes:
        """A block without the digest that stands behind it."""
        return data[: min(self.cache.block_bytes, entry.num_bytes - number * self.cache.block_bytes)]

    def _damaged(self, entry: FileEntry, found: str) -> ShardError:
        return ShardError(
            f"{self._address(entry)}: is damaged (SHA-256 {found}, the manifest says {entry.sha256}), also "
            f"when fetched once more; {REMEDY}"
        )

    def _is_whole(self, entry: FileEntry, path: Path) -> bool:
        """Whether a file that is fetched whole is here; its content was compared when it arrived."""
        return path.is_file() and path.stat().st_size == entry.num_bytes

    def _fetch_whole(self, entry: FileEntry, path: Path) -> None:
        for is_last in (False, True):
            data = self._reader.read_range(self._address(entry), 0, entry.num_bytes)
            found = hashlib.sha256(data).hexdigest()
            if found == entry.sha256:
                write_bytes(path, data)
                return
            if is_last:
                raise self._damaged(entry, found)
            log.warning("%s: came damaged (SHA-256 %s); fetched once more", self._address(entry), found)

    def _known_sums(self, entry: FileEntry) -> list[bytes] | None:
        if entry.sha256 not in self._sums:
            stored = self.cache.sums(entry.sha256, self._count(entry))
            if stored is None:
                return None
            self._sums[entry.sha256] = stored
        return self._sums[entry.sha256]

    def _count(self, entry: FileEntry) -> int:
        return -(-entry.num_bytes // self.cache.block_bytes)

    def _lock_of(self, entry: FileEntry) -> threading.RLock:
        with self._guard:
            return self._file_locks.setdefault(entry.sha256, threading.RLock())

    def _address(self, entry: FileEntry) -> str:
        return f"{self.address.rstrip('/')}/{entry.path}"
