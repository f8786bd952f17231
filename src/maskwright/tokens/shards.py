"""Token shards: flat little-endian files that training maps into memory.

A shard holds documents of one source in two files: their ids, each document closed by `</s>`, and
the end offset of each document (uint64); on request others have the end of each sentence, and a bit a
token for where words begin. Two bytes a token below 65,536 entries, four above. Reading a window
touches only its bytes, and a file is looked at when it is first read, so opening and seeking cost the
same at any size. The files may also lie on object storage (`remote_folder.py`); then blocks of them are
fetched as they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..core.errors import ShardError
from ..core.inventory import FileEntry
from .manifest import REMEDY, Manifest, load_manifest
from .shard_files import ByteRange, Column, DataFolder, LocalFiles, ShardFiles
from .shard_writing import EncodedDocuments, WrittenShard, token_dtype, write_array, write_shard

__all__ = [
    "EncodedDocuments",
    "SourceTokens",
    "TokenData",
    "WrittenShard",
    "open_split",
    "token_dtype",
    "verify_folder",
    "write_array",
    "write_shard",
]

# Checksums are compared when data is opened for training up to this size, and behind the training beyond it.
VERIFY_BYTES = 4 << 30
# Shards kept mapped; the system limits how many mappings a process may have.
MAX_MAPPED_FILES = 4096
# Tokens beside a sample that are looked at for its words.
_BESIDE = 128


@dataclass(frozen=True)
class SourceTokens:
    """Where the tokens of one source lie in a split.

    Attributes:
        name: of the source.
        first: position of its first token in the split.
        num_tokens: how many it has there.
        repeats: how often they occur in an epoch of training.
    """

    name: str
    first: int
    num_tokens: int
    repeats: float


class TokenData:
    """Read access to one split as a single long row of tokens.

    Args:
        folder: the data folder; one on object storage as `open_data_folder` gives it.
        manifest: what it says about itself.
        split: name of the split.

    Attributes:
        place: the data folder.
        folder: where its manifest, tokenizer and other small files lie on this machine.

    Raises:
        ShardError: there is no such split, or a file of it is missing. A file of another length than
            the manifest says is refused when it is first read.
    """

    def __init__(self, folder: Path | DataFolder, manifest: Manifest, split: str) -> None:
        self.place = folder if isinstance(folder, DataFolder) else DataFolder(folder, str(folder))
        if split not in manifest.splits:
            raise ShardError(
                f"{self.place.address}: has no split {split!r}; it has {', '.join(manifest.splits)}"
            )
        self.folder, self.manifest, self.split = self.place.path, manifest, split
        self.shards = manifest.splits[split].shards
        self._files: ShardFiles = self.place.files or LocalFiles(self.folder)
        self._verified = False
        self._files.require(entry for shard in self.shards for entry in shard.files)
        self.token_ends = np.cumsum([shard.num_tokens for shard in self.shards], dtype=np.int64)
        self.document_ends = np.cumsum([shard.num_documents for shard in self.shards], dtype=np.int64)
        self._map = lru_cache(maxsize=MAX_MAPPED_FILES)(self._open)
        self._ends = lru_cache(maxsize=MAX_MAPPED_FILES)(self._open_ends)

    @property
    def num_tokens(self) -> int:
        """Tokens of the split."""
        return int(self.token_ends[-1]) if len(self.token_ends) else 0

    @property
    def num_documents(self) -> int:
        """Documents of the split."""
        return int(self.document_ends[-1]) if len(self.document_ends) else 0

    @cached_property
    def sources(self) -> tuple[SourceTokens, ...]:
        """The sources in the order in which they lie."""
        found, first = [], 0
        for name, num_tokens in self.manifest.splits[self.split].tokens_by_source.items():
            found.append(SourceTokens(name, first, num_tokens, self.manifest.repeats.get(name, 1.0)))
            first += num_tokens
        return tuple(found)

    def _open(self, number: int, kind: str) -> Column:
        entry: FileEntry = getattr(self.shards[number], kind)
        types = {"tokens": self.manifest.dtype, "words": "uint8"}
        return self._files.column(entry, np.dtype(types[kind]).newbyteorder("<"))

    def ends(self, number: int, kind: str) -> npt.NDArray[np.uint64]:
        """Where documents or sentences of a shard end, to be searched; uint64, ascending.

        Args:
            number: of the shard.
            kind: `documents` or `sentences`.

        Raises:
            ShardError: the file is missing, damaged, or of another length than the manifest says.
        """
        return self._ends(number, kind)

    def _open_ends(self, number: int, kind: str) -> npt.NDArray[np.uint64]:
        return self._files.array(getattr(self.shards[number], kind), np.dtype("<u8"))

    def expect(
        self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], *, keep: bool = True
    ) -> None:
        """Say which tokens are read soon, so that they are fetched before; local data has no need.

        Args:
            starts: positions of the first tokens of some ranges; int64, any shape.
            lengths: tokens of each; int64, the same shape.
            keep: whether they are those of a coming step, and must stay until it is past.

        Raises:
            StorageError: the cache is too small for what the coming steps read.
        """
        if self.place.files is None:
            return
        size = np.dtype(self.manifest.dtype).itemsize
        parts: list[ByteRange] = []
        for start, length in zip(starts.ravel().tolist(), lengths.ravel().tolist(), strict=True):
            low, high = max(0, start - _BESIDE), min(self.num_tokens, start + length + _BESIDE)
            for number, first, stop in self._pieces(low, high - low):
                shard = self.shards[number]
                parts.append((shard.tokens, first * size, stop * size))
                if shard.words is not None:
                    parts.append((shard.words, first // 8, -(-stop // 8)))
        self.place.expect(parts, keep=keep)

    def tokens(self, start: int, count: int) -> npt.NDArray[np.int64]:
        """Ids at positions `start` to `start + count`, across shards; int64.

        Raises:
            IndexError: the range leaves the split.
            ShardError: a file of it is missing or has another length than the manifest says.
        """
        pieces = [
            self._map(number, "tokens")[first:stop].astype(np.int64)
            for number, first, stop in self._pieces(start, count)
        ]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def _pieces(self, start: int, count: int) -> Iterator[tuple[int, int, int]]:
        """The shards that a range of tokens touches, each with where the range begins and ends in it."""
        if start < 0 or count < 0 or start + count > self.num_tokens:
            raise IndexError(f"tokens {start} to {start + count} lie outside 0 to {self.num_tokens}")
        number = int(np.searchsorted(self.token_ends, start, side="right"))
        while count:
            end = int(self.token_ends[number])
            first = start - end + self.shards[number].num_tokens
            size = min(count, end - start)
            if size:
                yield number, first, first + size
            start, count, number = start + size, count - size, number + 1

    @cached_property
    def has_words(self) -> bool:
        """Whether preparation stored where words begin."""
        return bool(self.shards) and all(shard.words is not None for shard in self.shards)

    def require_words(self) -> None:
        """Refuse data without stored words. Raises `ShardError`."""
        if not self.has_words:
            raise ShardError(
                f"{self.folder}: was prepared without the borders of words; prepare it again with "
                "words.segmenter, or take the words that the vocabulary tells"
            )

    def words(self, start: int, count: int) -> npt.NDArray[np.bool_]:
        """Whether the tokens at positions `start` to `start + count` begin a word; bool.

        Raises:
            IndexError: the range leaves the split.
            ShardError: the data has no words, or a file is missing or of another length.
        """
        self.require_words()
        pieces = []
        for number, first, stop in self._pieces(start, count):
            packed = self._map(number, "words")[first // 8 : -(-stop // 8)]
            bits = np.unpackbits(packed, count=stop - first // 8 * 8, bitorder="little")
            pieces.append(bits[first % 8 :].astype(np.bool_))
        return np.concatenate(pieces) if pieces else np.empty(0, np.bool_)

    def _place(self, number: int) -> tuple[int, int, int]:
        """Shard of a document, and the offsets in it where the document begins and where it is closed."""
        if not 0 <= number < self.num_documents:
            raise ShardError(f"document {number} does not exist; {self.split} has {self.num_documents}")
        shard = int(np.searchsorted(self.document_ends, number, side="right"))
        local = number - (int(self.document_ends[shard]) - self.shards[shard].num_documents)
        ends = self.ends(shard, "documents")
        return shard, int(ends[local - 1]) if local else 0, int(ends[local]) - 1

    def document(self, number: int) -> npt.NDArray[np.int64]:
        """Ids of one document without its closing `</s>`; int64.

        Raises:
            ShardError: there is no document of this number, or its shard cannot be read.
        """
        start, stop = self.document_range(number)
        return self.tokens(start, stop - start)

    def document_range(self, number: int) -> tuple[int, int]:
        """Positions of the first token of a document and of the `</s>` that closes it.

        Raises:
            ShardError: there is no document of this number, or its shard cannot be read.
        """
        shard, first, end = self._place(number)
        base = int(self.token_ends[shard]) - self.shards[shard].num_tokens
        return base + first, base + end

    def document_starts(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where the document of each position begins; a closing `</s>` belongs to what it closes.

        Args:
            positions: places of tokens in the split; int64, any shape.

        Raises:
            IndexError: a position lies outside the split.
            ShardError: a shard cannot be read.
        """
        if positions.size and not 0 <= positions.min() <= positions.max() < self.num_tokens:
            raise IndexError(
                f"positions {positions.min()} to {positions.max()} lie outside 0 to {self.num_tokens}"
            )
        found = np.empty_like(positions)
        shards = np.searchsorted(self.token_ends, positions, side="right")
        for shard in np.unique(shards).tolist():
            chosen = shards == shard
            base = int(self.token_ends[shard]) - self.shards[shard].num_tokens
            ends = self.ends(shard, "documents")
            # The type of the file, or NumPy would convert all of it to compare.
            number = np.searchsorted(ends, (positions[chosen] - base).astype(ends.dtype), side="right")
            before = ends[np.maximum(number - 1, 0)].astype(np.int64)
            found[chosen] = base + np.where(number > 0, before, 0)
        return found

    def sentences(self, document: int) -> npt.NDArray[np.int64]:
        """Where the sentences of a document end, counted in its tokens; int64, ascending.

        Raises:
            ShardError: there is no document of this number, or the data has no sentences.
        """
        shard, first, end = self._place(document)
        if self.shards[shard].sentences is None:
            raise ShardError(
                f"{self.folder}: was prepared without the ends of sentences; prepare it again with them"
            )
        ends = self.ends(shard, "sentences")
        # The type of the file, or NumPy would convert all of it to compare.
        low, high = np.searchsorted(ends, np.array([first, end], ends.dtype), side="right")
        return ends[low:high].astype(np.int64) - first

    def document_lengths(self, shard: int, limit: int) -> npt.NDArray[np.int64]:
        """Tokens of the first documents of a shard, closing ids left out; int64, at most `limit`."""
        ends = self.ends(shard, "documents")[:limit].astype(np.int64)
        return np.diff(ends, prepend=0) - 1

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
        self._files.verify(entry for shard in self.shards for entry in shard.files)
        self._verified = True

    def unverified(self) -> list[FileEntry]:
        """Files here whose checksums nobody has compared; data elsewhere is compared on arrival."""
        if self._verified or self.place.files is not None:
            return []
        return [entry for shard in self.shards for entry in shard.files]


def open_split(
    folder: Path | DataFolder, split: str, manifest: Manifest | None = None, *, verify: bool | None = None
) -> TokenData:
    """Open a split for training.

    Args:
        folder: the data folder; one on object storage as `open_data_folder` gives it.
        split: name of the split.
        manifest: of the folder, where it was read already.
        verify: whether to compare every checksum now, which reads all of the split once. None does so for
            local data up to `VERIFY_BYTES`. Larger data is checked for missing files only (`DataCheck` does
            the rest); that on object storage is compared as it arrives.

    Raises:
        ShardError: the folder is unfinished, damaged, or has no such split.
    """
    path = folder.path if isinstance(folder, DataFolder) else folder
    data = TokenData(folder, manifest or load_manifest(path), split)
    data.token_counts()
    if verify is None:
        small = sum(shard.tokens.num_bytes for shard in data.shards) <= VERIFY_BYTES
        verify = small and data.place.files is None
    if verify:
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
        files += sum(len(shard.files) for shard in data.shards)
    return files
