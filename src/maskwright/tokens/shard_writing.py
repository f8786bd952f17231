"""Writing token shards: one call a shard, so that many processes can fill one data folder.

A shard is written and hashed as its documents come; memory holds one batch of them, whatever the
size of the shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.files import atomic_open, storage_errors
from ..core.inventory import FileEntry
from .manifest import Shard

__all__ = ["EncodedDocuments", "WrittenShard", "token_dtype", "write_array", "write_shard"]


def token_dtype(vocab_size: int) -> str:
    """The smallest type that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def write_array(folder: Path, path: str, array: npt.NDArray[Any]) -> FileEntry:
    """Write an array as little-endian bytes, atomically, and describe the file."""
    with ExitStack() as stack:
        column = _Column(stack, folder, path, array.dtype)
        column.write(array)
    return column.entry()


class _Column:
    """A file of numbers that is written and hashed as they come; whole when the stack closes."""

    def __init__(self, stack: ExitStack, folder: Path, path: str, dtype: npt.DTypeLike) -> None:
        self.path, self.place = path, folder / path
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.file = stack.enter_context(atomic_open(self.place))
        self.digest, self.num_bytes = hashlib.sha256(), 0

    def write(self, numbers: npt.NDArray[Any]) -> None:
        """Append some numbers."""
        data = np.ascontiguousarray(numbers, dtype=self.dtype).tobytes()
        with storage_errors(self.place):  # here, so that a refusal names this file and not its neighbour
            self.file.write(data)
        self.digest.update(data)
        self.num_bytes += len(data)

    @property
    def num_entries(self) -> int:
        """Numbers written so far."""
        return self.num_bytes // self.dtype.itemsize

    def entry(self) -> FileEntry:
        """What the manifest says of the file."""
        return FileEntry(path=self.path, num_bytes=self.num_bytes, sha256=self.digest.hexdigest())


class _Bits:
    """A file of one bit a token, low bits first; bits that fill no byte yet wait for the next ones."""

    def __init__(self, stack: ExitStack, folder: Path, path: str) -> None:
        self.column = _Column(stack, folder, path, np.uint8)
        self._waiting = np.zeros(0, np.bool_)

    def write(self, bits: npt.NDArray[np.bool_]) -> None:
        """Append some bits."""
        bits = np.concatenate([self._waiting, bits])
        whole = len(bits) // 8 * 8
        self.column.write(np.packbits(bits[:whole], bitorder="little"))
        self._waiting = bits[whole:]

    def finish(self) -> None:
        """Write what waits, filled up with zeros."""
        self.column.write(np.packbits(self._waiting, bitorder="little"))


class EncodedDocuments(NamedTuple):
    """Some documents as ids, without closing ones.

    Attributes:
        ids: ids of all documents laid end to end; unsigned, of shape (N,).
        counts: ids of each document; int64, (D,).
        sentence_ends: where in `ids` each sentence ends, ascending; int64, or None.
        word_begins: whether each id begins a word; bool, (N,), or None.
    """

    ids: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]
    sentence_ends: npt.NDArray[np.int64] | None = None
    word_begins: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class WrittenShard:
    """A finished shard, and how often each id occurs in it (int64 of shape (V,))."""

    shard: Shard
    token_counts: npt.NDArray[np.int64]


def write_shard(
    folder: Path,
    split: str,
    number: int,
    batches: Iterable[EncodedDocuments | tuple[npt.NDArray[Any], npt.NDArray[np.int64]]],
    *,
    vocab_size: int,
    eos_id: int,
    source: str = "",
    sentences: bool = False,
    words: bool = False,
) -> WrittenShard:
    """Write one shard as its documents come. Processes may write the shards of a folder side by side.

    The files appear when all documents are written; if anything fails, none does. A shard written
    again from the same documents has the same bytes. One without documents has empty files.

    Args:
        folder: the data folder.
        split: name of the split, which becomes a folder.
        number: of the shard in the split.
        batches: documents, for example from `Tokenizer.encode_batch`; one batch is held in memory.
        vocab_size: number of ids; decides the type.
        eos_id: id that closes a document.
        source: where the documents come from.
        sentences: also write where sentences end; every batch then says so.
        words: also write where words begin; every batch then says so.

    Raises:
        StorageError: the storage refused.
    """
    name = f"{split}/shard-{number:05d}"
    num_words = 0
    token_counts = np.zeros(vocab_size, np.int64)
    with ExitStack() as stack:
        tokens = _Column(stack, folder, f"{name}.tokens", token_dtype(vocab_size))
        documents = _Column(stack, folder, f"{name}.documents", np.uint64)
        ends_of_sentences = _Column(stack, folder, f"{name}.sentences", np.uint64) if sentences else None
        begins_of_words = _Bits(stack, folder, f"{name}.words") if words else None
        for batch in batches:
            ids, counts, sentence_ends, word_begins = EncodedDocuments(*batch)
            first, ends = tokens.num_entries, np.cumsum(counts)
            closed = np.insert(ids, ends, eos_id)
            token_counts += np.bincount(closed, minlength=vocab_size)
            tokens.write(closed)
            documents.write(first + ends + np.arange(1, len(ends) + 1))
            if ends_of_sentences is not None:
                assert sentence_ends is not None
                closings_before = np.searchsorted(ends, sentence_ends, side="left")
                ends_of_sentences.write(first + sentence_ends + closings_before)
            if begins_of_words is not None:
                assert word_begins is not None
                num_words += int(np.count_nonzero(word_begins))
                begins_of_words.write(np.insert(word_begins, ends, True))
        if begins_of_words is not None:
            begins_of_words.finish()
    shard = Shard(
        num_tokens=tokens.num_entries,
        num_documents=documents.num_entries,
        num_sentences=ends_of_sentences.num_entries if ends_of_sentences else 0,
        num_words=num_words,
        source=source,
        tokens=tokens.entry(),
        documents=documents.entry(),
        sentences=ends_of_sentences.entry() if ends_of_sentences else None,
        words=begins_of_words.column.entry() if begins_of_words else None,
    )
    return WrittenShard(shard, token_counts)
