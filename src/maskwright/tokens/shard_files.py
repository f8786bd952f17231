"""Where the numbers of a shard's files come from: a folder here, or a cache of object storage.

A file of a local folder is mapped into memory when it is first read, so opening costs the same at any
size and a read touches its own pages only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..core.errors import ShardError
from ..core.files import storage_errors
from ..core.inventory import FileEntry
from .manifest import REMEDY

if TYPE_CHECKING:
    from .remote_files import RemoteFiles

__all__ = ["ByteRange", "Column", "DataFolder", "LocalFiles", "ShardFiles", "map_file"]

# A part of a file that will be read soon: the file, its first byte, and the byte behind the last one.
ByteRange = tuple[FileEntry, int, int]


class Column(Protocol):
    """Numbers of a file that are read by slices. A seam: not every file is mapped into memory."""

    def __getitem__(self, part: slice, /) -> npt.NDArray[Any]:
        """Some neighbouring numbers."""
        ...


class ShardFiles(Protocol):
    """The files of a data folder. A seam: they may lie here or on object storage."""

    def require(self, entries: Iterable[FileEntry]) -> None:
        """Refuse the folder if a file is missing, where that can be told cheaply."""
        ...

    def column(self, entry: FileEntry, dtype: np.dtype[Any]) -> Column:
        """A file of which short ranges are read."""
        ...

    def array(self, entry: FileEntry, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """A file that is searched, as an array."""
        ...

    def verify(self, entries: Iterable[FileEntry]) -> None:
        """Compare every checksum."""
        ...


@dataclass(frozen=True)
class LocalFiles:
    """The files of a folder on this machine.

    Attributes:
        folder: the data folder.
    """

    folder: Path

    def require(self, entries: Iterable[FileEntry]) -> None:
        """List each folder once; to ask for every file would take minutes on network storage.

        Raises:
            ShardError: a file is missing.
        """
        listed: dict[str, set[str]] = {}
        for entry in entries:
            parent, _, name = entry.path.rpartition("/")
            if parent not in listed:
                listed[parent] = _names_in(self.folder / parent)
            if name not in listed[parent]:
                entry.check(self.folder, ShardError, REMEDY, content=False)

    def column(self, entry: FileEntry, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """A file of which short ranges are read, mapped into memory.

        Raises:
            ShardError: it is missing or has another length than the manifest says.
        """
        return self.array(entry, dtype)

    def array(self, entry: FileEntry, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """A file that is searched, mapped into memory.

        Raises:
            ShardError: it is missing or has another length than the manifest says.
        """
        entry.check(self.folder, ShardError, REMEDY, content=False)
        return map_file(self.folder / entry.path, dtype)

    def verify(self, entries: Iterable[FileEntry]) -> None:
        """Compare every checksum. Raises `ShardError` for the first file that differs."""
        for entry in entries:
            entry.check(self.folder, ShardError, REMEDY, content=True)


def map_file(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Map a file of numbers into memory, as a plain array: a search through `memmap` costs several times as
    much."""
    if not path.stat().st_size:  # nothing, which cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _names_in(folder: Path) -> set[str]:
    with storage_errors(folder):
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@dataclass(frozen=True)
class DataFolder:
    """A data folder, wherever its shards lie.

    Attributes:
        path: holds manifest, tokenizer and all that is small: the folder itself, or what was fetched of it.
        address: of the folder, for messages.
        files: gives the shards of a folder on object storage; None where they lie below `path`.
    """

    path: Path
    address: str
    files: RemoteFiles | None = None

    @property
    def steps_told(self) -> int:
        """How many steps, the next one counted, should be told of before they are read; 0 for local data."""
        return 0 if self.files is None else self.files.config.steps_ahead + 1

    def expect(self, parts: Sequence[ByteRange], *, keep: bool = True) -> None:
        """Say what a coming step will read, so that it is fetched before; local data has no need."""
        if self.files is not None:
            self.files.expect(parts, keep=keep)

    def close(self) -> None:
        """Stop fetching in the background."""
        if self.files is not None:
            self.files.close()
