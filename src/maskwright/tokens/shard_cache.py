"""Blocks of shards on the local disk: together at most so many bytes, shared by all processes of a machine.

A block is one file that appears under its name by a rename. Behind its bytes stands a digest that is
compared when a process first reads it, so a block that a crash or the disk has damaged is fetched again.
When the cache is full the blocks that were not used for the longest time go; those that the process itself
said it needs stay. Every process keeps the bound, because the sum of all blocks is kept in a file under a
lock of the operating system. Cost: a digest a block and process, and opening a file a read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ..core.errors import StorageError
from ..core.files import storage_errors, write_bytes
from ..core.log import get_logger

__all__ = ["BlockKey", "ShardCache", "block_digest"]

log = get_logger(__name__)
_DIGEST_BYTES = 16
# A full cache is emptied to this share, so that the list of all blocks is made seldom.
_KEPT_SHARE = 0.9
# What a killed process left behind is older than any transfer.
_STALE_SECONDS = 3600.0


class BlockKey(NamedTuple):
    """Which block: the SHA-256 of the file that it is a part of, and its number in there."""

    file: str
    number: int


def block_digest(data: bytes) -> bytes:
    """A short digest of a block."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


class ShardCache:
    """Blocks of files below a folder.

    Args:
        folder: made if missing; several processes and data folders may share it.
        most_bytes: bound on the bytes of all blocks with their digests.
        block_bytes: bytes of a block, the last of a file excepted.

    Raises:
        StorageError: the bound holds no block, or the storage refused.
    """

    def __init__(self, folder: Path, most_bytes: int, block_bytes: int) -> None:
        if most_bytes < block_bytes + _DIGEST_BYTES:
            raise StorageError(
                f"{folder}: cache.most_bytes is {most_bytes}, too few for one block of {block_bytes}; raise "
                "it or lower cache.block_bytes"
            )
        self.folder, self.most_bytes, self.block_bytes = folder, most_bytes, block_bytes
        self._incoming, self._blocks = folder / "incoming", folder / "blocks"
        self._checked: set[BlockKey] = set()
        with storage_errors(folder):
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._blocks.mkdir(exist_ok=True)

    def _place(self, file: str) -> Path:
        """The folder of a file's blocks; blocks of another length are other blocks."""
        return self._blocks / file[:2] / f"{file}-{self.block_bytes}"

    def read(self, key: BlockKey, start: int, stop: int) -> bytes | None:
        """A part of a block, or None where the cache has it not, or not whole.

        Args:
            key: which block.
            start: first byte in the block.
            stop: byte behind the last one.

        Raises:
            StorageError: the storage refused.
        """
        path = self._place(key.file) / str(key.number)
        with storage_errors(path):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                if key not in self._checked and not self._check(key, path, handle):
                    return None
                data = os.pread(handle, stop - start, start)
                with contextlib.suppress(PermissionError):  # somebody else's block
                    os.utime(handle)
            finally:
                os.close(handle)
        return data

    def _check(self, key: BlockKey, path: Path, handle: int) -> bool:
        whole = os.pread(handle, self.block_bytes + _DIGEST_BYTES, 0)
        data, digest = whole[:-_DIGEST_BYTES], whole[-_DIGEST_BYTES:]
        if block_digest(data) == digest:
            self._checked.add(key)
            return True
        log.warning("%s: was damaged on this disk; it is fetched again", path)
        path.unlink(missing_ok=True)
        return False

    def touch(self, key: BlockKey) -> bool:
        """Whether a block is there; counts as a use of it."""
        try:
            os.utime(self._place(key.file) / str(key.number))
        except FileNotFoundError:
            return False
        except PermissionError:  # somebody else's block
            return True
        return True

    def write(self, key: BlockKey, data: bytes, keep: Collection[BlockKey] = ()) -> None:
        """Add a block; others go if there is no room.

        Args:
            key: which block.
            data: its bytes.
            keep: blocks that must stay.

        Raises:
            StorageError: the storage refused, or nothing may go and there is no room.
        """
        path = self._place(key.file) / str(key.number)
        temporary = self._incoming / uuid.uuid4().hex
        needed = len(data) + _DIGEST_BYTES
        with storage_errors(path):
            try:
                temporary.write_bytes(data + block_digest(data))
                path.parent.mkdir(parents=True, exist_ok=True)
                with self._held():
                    used = self._used()
                    if not path.exists():
                        if used + needed > self.most_bytes:
                            used = self._make_room(needed, keep)
                        # First the sum: a crash in between leaves it too high, and making room mends that.
                        self._say_used(used + needed)
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        self._checked.add(key)

    def numbers(self, file: str) -> set[int]:
        """Which blocks of a file are there."""
        try:
            return {int(path.name) for path in self._place(file).iterdir() if path.name.isdecimal()}
        except FileNotFoundError:
            return set()

    def drop(self, file: str) -> None:
        """Remove all blocks of a file. Raises `StorageError` where the storage refuses."""
        place = self._place(file)
        with storage_errors(place), self._held():
            used = self._used()
            for number in self.numbers(file):
                used -= (place / str(number)).stat().st_size
                (place / str(number)).unlink()
                self._checked.discard(BlockKey(file, number))
            self._say_used(used)

    def sums(self, file: str, count: int) -> list[bytes] | None:
        """Digests of all blocks of a file whose own checksum was compared, or None.

        Args:
            file: its SHA-256.
            count: number of its blocks.
        """
        try:
            stored = (self._place(file) / "sums").read_bytes()
        except FileNotFoundError:
            return None
        sums, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
        if block_digest(sums) != digest or len(sums) != count * _DIGEST_BYTES:
            return None
        return [sums[place : place + _DIGEST_BYTES] for place in range(0, len(sums), _DIGEST_BYTES)]

    def keep_sums(self, file: str, sums: list[bytes]) -> None:
        """Keep the digests of a file whose checksum was right. Raises `StorageError`."""
        data = b"".join(sums)
        write_bytes(self._place(file) / "sums", data + block_digest(data))

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Keep the other threads and processes away from the sum; short, so waiting is all they do."""
        try:
            import fcntl
        except ImportError:  # no such locks outside Unix; two processes may then go beyond the bound
            yield
            return
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _used(self) -> int:
        try:
            return int((self.folder / "used").read_text())
        except (FileNotFoundError, ValueError):
            return sum(size for _, size, _, _ in self._all())

    def _say_used(self, num_bytes: int) -> None:
        (self.folder / "used").write_text(str(num_bytes))

    def _all(self) -> Iterator[tuple[float, int, BlockKey, Path]]:
        """Every block: when it was used, its bytes, its key, and its file."""
        for place in self._blocks.glob("??/*"):
            file, _, block_bytes = place.name.rpartition("-")
            mine = block_bytes == str(self.block_bytes)
            for entry in os.scandir(place):
                if entry.name.isdecimal():
                    try:
                        about = entry.stat()
                    except FileNotFoundError:  # it was damaged, and another process removed it
                        continue
                    key = BlockKey(file if mine else place.name, int(entry.name))
                    yield about.st_mtime, about.st_size, key, Path(entry.path)

    def _make_room(self, needed: int, keep: Collection[BlockKey]) -> int:
        """Remove the blocks that were not used for the longest time; the bytes that are left."""
        self._remove_stale()
        found = sorted(self._all())
        used, aim = sum(size for _, size, _, _ in found), int(_KEPT_SHARE * self.most_bytes) - needed
        kept = set(keep)
        for _, size, key, path in found:
            if used <= aim:
                break
            if key not in kept:
                path.unlink(missing_ok=True)
                self._checked.discard(key)
                used -= size
        if used + needed > self.most_bytes:
            raise StorageError(
                f"{self.folder}: cache.most_bytes is {self.most_bytes}, and {used} of them hold blocks that "
                "the coming steps need; raise it, or lower cache.steps_ahead or cache.block_bytes"
            )
        return used

    def _remove_stale(self) -> None:
        for path in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
