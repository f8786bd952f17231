"""Token shards: flat little-endian files that training maps into memory.

A shard is two files: the ids of its documents, each document closed by `</s>`, and the end offset
of each document (uint64). Two bytes a token below 65,536 entries, four above. Reading a window
touches only its bytes, so opening and seeking cost the same at any size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import ShardError
from ..core.files import atomic_open
from ..core.inventory import FileEntry
from .manifest import REMEDY, Manifest, Shard, Split, load_manifest
from .tokenizer import Tokenizer

__all__ = ["ShardWriter", "TokenData", "open_split", "verify_folder", "write_array"]

# Checksums are compared when data is opened for training up to this size; `inspect` has no limit.
VERIFY_BYTES = 4 << 30


def token_dtype(vocab_size: int) -> str:
    """The smallest type that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def write_array(folder: Path, path: str, array: npt.NDArray[Any]) -> FileEntry:
    """Write an array as little-endian bytes, atomically, and describe the file."""
    data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    with atomic_open(folder / path) as file:
        file.write(data.tobytes())
    return FileEntry(path=path, num_bytes=data.nbytes, sha256=hashlib.sha256(data.tobytes()).hexdigest())


class ShardWriter:
    """Cuts a stream of encoded documents into shards of one split.

    Args:
        folder: the data folder.
        split: name of the split, which becomes a folder.
        tokenizer: gives the closing id and the type.
        tokens_per_shard: a shard is closed when it has at least so many.
    """

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, tokens_per_shard: int) -> None:
        self.folder, self.split, self.tokenizer = folder, split, tokenizer
        self.tokens_per_shard = tokens_per_shard
        self.dtype = np.dtype(token_dtype(tokenizer.vocab_size))
        self.token_counts = np.zeros(tokenizer.vocab_size, np.int64)
        self.num_text_bytes = 0
        self._shards: list[Shard] = []
        self._tokens: list[npt.NDArray[Any]] = []
        self._ends: list[int] = []
        self._pending = 0

    def add(self, texts: Sequence[str]) -> None:
        """Encode some documents and add them."""
        ids, counts = self.tokenizer.encode_batch(texts)
        self.num_text_bytes += sum(len(text.encode()) for text in texts)
        ends = np.cumsum(counts)
        closed = np.insert(ids, ends, self.tokenizer.eos_id).astype(self.dtype)
        self.token_counts += np.bincount(closed, minlength=self.tokenizer.vocab_size)
        self._tokens.append(closed)
        self._ends.extend((self._pending + ends + np.arange(1, len(ends) + 1)).tolist())
        self._pending += len(closed)
        if self._pending >= self.tokens_per_shard:
            self._close()

    def _close(self) -> None:
        name = f"{self.split}/shard-{len(self._shards):05d}"
        shard = Shard(
            num_tokens=self._pending,
            num_documents=len(self._ends),
            tokens=write_array(self.folder, f"{name}.tokens", np.concatenate(self._tokens)),
            documents=write_array(self.folder, f"{name}.documents", np.array(self._ends, np.uint64)),
        )
        self._shards.append(shard)
        self._tokens, self._ends, self._pending = [], [], 0

    def finish(self) -> Split:
        """Write what is left and describe the split."""
        if self._pending:
            self._close()
        return Split(shards=tuple(self._shards), num_text_bytes=self.num_text_bytes)


class TokenData:
    """Read access to one split as a single long row of tokens.

    Args:
        folder: the data folder.
        manifest: what it says about itself.
        split: name of the split.

    Raises:
        ShardError: there is no such split, or a file has another length than the manifest says.
    """

    def __init__(self, folder: Path, manifest: Manifest, split: str) -> None:
        if split not in manifest.splits:
            raise ShardError(f"{folder}: has no split {split!r}; it has {', '.join(manifest.splits)}")
        self.folder, self.manifest, self.split = folder, manifest, split
        self.shards = manifest.splits[split].shards
        for shard in self.shards:
            shard.check(folder, content=False)
        self.token_ends = np.cumsum([shard.num_tokens for shard in self.shards], dtype=np.int64)
        self.document_ends = np.cumsum([shard.num_documents for shard in self.shards], dtype=np.int64)
        self._map = lru_cache(maxsize=256)(self._open)

    @property
    def num_tokens(self) -> int:
        """Tokens of the split."""
        return int(self.token_ends[-1]) if len(self.token_ends) else 0

    @property
    def num_documents(self) -> int:
        """Documents of the split."""
        return int(self.document_ends[-1]) if len(self.document_ends) else 0

    def _open(self, number: int, kind: str) -> npt.NDArray[Any]:
        shard = self.shards[number]
        dtype = f"<{np.dtype(self.manifest.dtype).str[1:]}" if kind == "tokens" else "<u8"
        entry = shard.tokens if kind == "tokens" else shard.documents
        return np.memmap(self.folder / entry.path, dtype=dtype, mode="r")

    def tokens(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Ids at positions `start` to `start + count`, across shards; int64.

        Raises:
            IndexError: the range leaves the split.
        """
        if start < 0 or count < 0 or start + count > self.num_tokens:
            raise IndexError(f"tokens {start} to {start + count} lie outside 0 to {self.num_tokens}")
        pieces: list[npt.NDArray[np.int64]] = []
        number = int(np.searchsorted(self.token_ends, start, side="right"))
        while count:
            shard_start = int(self.token_ends[number]) - self.shards[number].num_tokens
            piece = self._map(number, "tokens")[start - shard_start : start - shard_start + count]
            pieces.append(piece.astype(np.int64))
            start, count, number = start + len(piece), count - len(piece), number + 1
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def document(self, number: int) -> npt.NDArray[np.int64]:
        """Ids of one document without its closing `</s>`; int64.

        Raises:
            ShardError: there is no document of this number.
        """
        if not 0 <= number < self.num_documents:
            raise ShardError(f"document {number} does not exist; {self.split} has {self.num_documents}")
        shard = int(np.searchsorted(self.document_ends, number, side="right"))
        local = number - (int(self.document_ends[shard]) - self.shards[shard].num_documents)
        ends = self._map(shard, "documents")
        first = int(ends[local - 1]) if local else 0
        base = int(self.token_ends[shard]) - self.shards[shard].num_tokens
        return self.tokens(base + first, int(ends[local]) - first - 1)

    def token_counts(self) -> npt.NDArray[np.int64]:
        """How often each id occurs in the training split; int64 of shape (V,).

        Raises:
            ShardError: the file is missing or damaged.
        """
        entry = self.manifest.token_counts
        entry.check(self.folder, ShardError, REMEDY, content=True)
        return np.fromfile(self.folder / entry.path, dtype="<i8").astype(np.int64)

    def verify(self) -> None:
        """Compare every checksum. Raises `ShardError` for the first file that differs."""
        for shard in self.shards:
            shard.check(self.folder, content=True)


def open_split(folder: Path, split: str) -> TokenData:
    """Open a split for training; checksums are compared unless the data is very large.

    Raises:
        ShardError: the folder is unfinished, damaged, or has no such split.
    """
    data = TokenData(folder, load_manifest(folder), split)
    data.token_counts()
    if sum(shard.tokens.num_bytes for shard in data.shards) <= VERIFY_BYTES:
        data.verify()
    return data


def verify_folder(folder: Path) -> int:
    """Compare every checksum of a data folder.

    Returns:
        Number of files compared.

    Raises:
        ShardError: for the first file that differs.
    """
    manifest = load_manifest(folder)
    files = 1
    for split in manifest.splits:
        data = TokenData(folder, manifest, split)
        data.token_counts()
        data.verify()
        files += 2 * len(manifest.splits[split].shards)
    return files
