"""Megatron's indexed datasets: `NAME.bin` holds ids, `NAME.idx` says where sequences and documents end.

The index (version 1, little-endian): 9 bytes of magic, version as uint64, type as one byte, number of
sequences and of document borders as uint64; then the length of each sequence (int32), its byte offset
(int64), and the sequence with which each document begins, closed by the number of sequences (int64).
Writing keeps about twenty bytes a sequence in memory, reading maps both files.

Source: Megatron-LM, `IndexedDataset`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.errors import DataError
from ...core.files import atomic_open
from ...core.fingerprint import fingerprint
from ..manifest import Manifest, Shard, Split, TokenizerEntry, save_manifest
from ..shard_writing import EncodedDocuments, WrittenShard, token_dtype, write_array, write_shard
from ..shards import TokenData
from ..tokenizer import Tokenizer
from .batches import TOKENS_PER_BATCH, DocumentBatch, document_batches

__all__ = ["MegatronFile", "export_megatron", "import_megatron"]

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_LONGEST = (1 << 31) - 1


def _pair(prefix: Path) -> tuple[Path, Path]:
    """Both files of a dataset; a prefix may be given with the ending of either."""
    name = prefix.name.removesuffix(".bin").removesuffix(".idx")
    return prefix.with_name(f"{name}.bin"), prefix.with_name(f"{name}.idx")


def export_megatron(
    data: TokenData, prefix: Path, *, keep_eos: bool = True, sentences: bool = False
) -> dict[str, int]:
    """Write a split as `PREFIX.bin` and `PREFIX.idx`. The index appears last.

    Args:
        data: the split.
        prefix: path without ending.
        keep_eos: whether the `</s>` that closes a document is written, at the end of its last sequence.
        sentences: make each sentence a sequence, as Megatron's BERT expects; else each document is one.

    Returns:
        `sequences`, `documents` and `tokens` written.

    Raises:
        ShardError: a shard cannot be read, or the data has no sentences.
        DataError: a sequence is longer than the format can say.
        StorageError: the storage refused.
    """
    bin_path, idx_path = _pair(prefix)
    code = 8 if data.manifest.dtype == "uint16" else 4
    dtype = np.dtype(_TYPES[code])
    sizes, borders = [np.empty(0, np.int64)], [np.zeros(1, np.int64)]
    num_sequences = 0
    with atomic_open(bin_path) as file:
        for batch in document_batches(data):
            ids = batch.ids if keep_eos else batch.open_ids
            file.write(ids.astype(dtype).tobytes())
            lengths, sequences = _sequences(data, batch, keep_eos=keep_eos, sentences=sentences)
            sizes.append(lengths)
            borders.append(num_sequences + np.cumsum(sequences))
            num_sequences += len(lengths)
    lengths, starts = np.concatenate(sizes), np.concatenate(borders)
    if len(lengths) and lengths.max() > _LONGEST:
        raise DataError(
            f"{bin_path}: a document has {lengths.max()} tokens, the format ends at {_LONGEST}; "
            "export sentences or split the document"
        )
    offsets = (np.cumsum(lengths) - lengths) * dtype.itemsize
    with atomic_open(idx_path) as file:
        file.write(_HEADER.pack(_MAGIC, 1, code, len(lengths), len(starts)))
        for column, kind in ((lengths, "<i4"), (offsets, "<i8"), (starts, "<i8")):
            file.write(column.astype(kind).tobytes())
    return {"sequences": len(lengths), "documents": len(starts) - 1, "tokens": int(lengths.sum())}


def _sequences(
    data: TokenData, batch: DocumentBatch, *, keep_eos: bool, sentences: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lengths of the sequences of a batch, and how many each document has."""
    counts = batch.counts if keep_eos else batch.counts - 1
    if not sentences:
        return counts, np.ones(len(counts), np.int64)
    lengths, numbers = [], []
    for place, count in enumerate(counts.tolist()):
        ends = data.sentences(batch.first + place)
        own = np.diff(ends, prepend=0)
        if not len(own):
            own = np.zeros(1, np.int64)
        own[-1] += count - own.sum()  # the closing id, or what lies behind the last end
        lengths.append(own)
        numbers.append(len(own))
    return np.concatenate(lengths), np.array(numbers, np.int64)


class MegatronFile:
    """Read access to an indexed dataset.

    Args:
        prefix: path without ending, or one of both files.

    Raises:
        DataError: a file is missing, or is not what the index says.
    """

    def __init__(self, prefix: Path) -> None:
        bin_path, idx_path = _pair(prefix)
        self.place = bin_path
        for path in (bin_path, idx_path):
            if not path.is_file():
                raise DataError(f"{path}: no such file; a Megatron dataset has a .bin and an .idx beside it")
        size = idx_path.stat().st_size
        with idx_path.open("rb") as file:
            header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise DataError(f"{idx_path}: does not begin as an index of Megatron (MMIDIDX); check the path")
        _, version, code, num_sequences, num_borders = _HEADER.unpack(header)
        if version != 1 or code not in _TYPES:
            raise DataError(
                f"{idx_path}: has version {version} and type {code}, expected version 1 and a type of whole "
                f"numbers ({', '.join(map(str, _TYPES))})"
            )
        needed = _HEADER.size + 12 * num_sequences + 8 * num_borders
        if size < needed:  # a column of modes may follow
            raise DataError(f"{idx_path}: has {size} bytes, its header says {needed}; copy it again")
        self.dtype = np.dtype(_TYPES[code])
        # Read whole: the columns are not aligned to their types in the file.
        with idx_path.open("rb") as file:
            file.seek(_HEADER.size)
            self.lengths = np.fromfile(file, "<i4", num_sequences).astype(np.int64)
            self.offsets = np.fromfile(file, "<i8", num_sequences)
            self.borders = np.fromfile(file, "<i8", num_borders)
        self._check(bin_path, idx_path)
        empty = not bin_path.stat().st_size
        self._ids = np.empty(0, self.dtype) if empty else np.memmap(bin_path, self.dtype, mode="r")

    def _check(self, bin_path: Path, idx_path: Path) -> None:
        width = self.dtype.itemsize
        ends = self.offsets + self.lengths * width
        num_bytes = bin_path.stat().st_size
        if len(ends) and (
            self.lengths.min() < 0 or self.offsets.min() < 0 or ends.max() > num_bytes or (ends % width).any()
        ):
            raise DataError(
                f"{bin_path}: has {num_bytes} bytes, its index speaks of {ends.max()}; copy both files again"
            )
        is_order = len(self.borders) and self.borders[0] == 0 and (np.diff(self.borders) >= 0).all()
        if not is_order or self.borders[-1] != len(self.lengths):
            raise DataError(
                f"{idx_path}: its documents do not cover its {len(self.lengths)} sequences; write it again"
            )

    @property
    def num_sequences(self) -> int:
        """Sequences of all documents."""
        return len(self.lengths)

    @property
    def num_documents(self) -> int:
        """Documents."""
        return len(self.borders) - 1

    def sequence(self, number: int) -> npt.NDArray[np.int64]:
        """Ids of one sequence; int64."""
        start = int(self.offsets[number]) // self.dtype.itemsize
        return self._ids[start : start + int(self.lengths[number])].astype(np.int64)

    def document(self, number: int) -> list[npt.NDArray[np.int64]]:
        """The sequences of one document."""
        return [self.sequence(place) for place in range(self.borders[number], self.borders[number + 1])]


def import_megatron(
    prefixes: Mapping[str, Path],
    folder: Path,
    tokenizer: Tokenizer,
    *,
    closing_id: int | None = None,
    sentences: bool = False,
    tokens_per_shard: int = 100_000_000,
) -> Manifest:
    """Make a data folder of Megatron datasets, ready to train on.

    Args:
        prefixes: dataset by split; training needs `train` and `validation`.
        folder: where; shards, tokenizer and manifest are written there.
        tokenizer: what made the ids; saved beside the shards.
        closing_id: id that closes documents there and is replaced by our `</s>`; ours by default.
        sentences: take each sequence as a sentence.
        tokens_per_shard: a shard is closed when it has at least so many.

    Returns:
        The manifest, which is written.

    Raises:
        DataError: a dataset cannot be read, or has ids that the tokenizer has not.
        StorageError: the storage refused.
    """
    token_counts = np.zeros(tokenizer.vocab_size, np.int64)
    splits = {}
    for split, prefix in prefixes.items():
        source = _Source(MegatronFile(prefix), tokenizer, closing_id, sentences)
        shards: list[Shard] = []
        while source.next_document < source.file.num_documents:
            written = _write(folder, split, len(shards), source, tokens_per_shard)
            shards.append(written.shard)
            if split == "train":
                token_counts += written.token_counts
        splits[split] = Split(shards=tuple(shards), num_text_bytes=source.num_text_bytes)
    tokenizer.save(folder / "tokenizer")
    entry = TokenizerEntry(fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size)
    manifest = Manifest(
        tokenizer=entry,
        dtype=token_dtype(tokenizer.vocab_size),
        splits=splits,
        token_counts=write_array(folder, "token_counts.bin", token_counts),
        provenance={
            "request": fingerprint([entry.model_dump(), closing_id, sentences, tokens_per_shard]),
            "sources": "megatron",
        },
    )
    save_manifest(folder, manifest)
    return manifest


class _Source:
    """Documents of a dataset, in order, and where the reading stands."""

    def __init__(
        self, file: MegatronFile, tokenizer: Tokenizer, closing_id: int | None, sentences: bool
    ) -> None:
        self.file, self.tokenizer, self.has_sentences = file, tokenizer, sentences
        self.closing_id = tokenizer.eos_id if closing_id is None else closing_id
        self.next_document = 0
        self.num_text_bytes = 0

    def batches(self, most_tokens: int) -> Iterator[EncodedDocuments]:
        """The next documents, until they have at least so many tokens."""
        taken = 0
        while taken < most_tokens and self.next_document < self.file.num_documents:
            rows: list[npt.NDArray[np.int64]] = []
            ends: list[npt.NDArray[np.int64]] = []
            size = 0
            while size < min(TOKENS_PER_BATCH, most_tokens - taken):
                if self.next_document == self.file.num_documents:
                    break
                row, stops = self._document(self.next_document)
                rows.append(row)
                ends.append(size - len(rows) + 1 + stops)
                size += len(row) + 1
                self.next_document += 1
            taken += size
            ids, counts = np.concatenate(rows), np.array([len(row) for row in rows], np.int64)
            self.num_text_bytes += self._text_bytes(ids)
            sentence_ends = np.concatenate(ends) if self.has_sentences else None
            yield EncodedDocuments(ids.astype(np.uint32), counts, sentence_ends)

    def _document(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids without the closing one, and where its sentences end."""
        rows = self.file.document(number)
        ids = np.concatenate(rows) if rows else np.empty(0, np.int64)
        wrong = ids[(ids < 0) | (ids >= self.tokenizer.vocab_size)]
        if len(wrong):
            raise DataError(
                f"{self.file.place}: document {number} has id {wrong[0]}, the tokenizer ends at "
                f"{self.tokenizer.vocab_size - 1}; import with the tokenizer that the dataset was made with"
            )
        if len(ids) and ids[-1] == self.closing_id:
            ids = ids[:-1]
        stops = np.minimum(np.cumsum([len(row) for row in rows], dtype=np.int64), len(ids))
        return ids, np.unique(stops[stops > 0])

    def _text_bytes(self, ids: npt.NDArray[Any]) -> int:
        lengths = self.tokenizer.spelling.lengths
        return int(lengths[ids].sum()) if lengths is not None else len(self.tokenizer.decode(ids).encode())


def _write(folder: Path, split: str, number: int, source: _Source, tokens_per_shard: int) -> WrittenShard:
    return write_shard(
        folder,
        split,
        number,
        source.batches(tokens_per_shard),
        vocab_size=source.tokenizer.vocab_size,
        eos_id=source.tokenizer.eos_id,
        sentences=source.has_sentences,
    )
