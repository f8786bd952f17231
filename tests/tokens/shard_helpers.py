"""Small data folders for tests: shards of chosen documents, and their manifest."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskwright.tokens.manifest import Manifest, Shard, Split, TokenizerEntry, save_manifest
from maskwright.tokens.shards import (
    EncodedDocuments,
    TokenData,
    open_split,
    token_dtype,
    write_array,
    write_shard,
)
from maskwright.tokens.tokenizer import Tokenizer

VOCAB, EOS = 300, 2


def encoded(documents: list[list[int]], sentences: list[list[int]] | None = None) -> EncodedDocuments:
    """A batch of documents; `sentences` gives the lengths of the sentences of each."""
    ids = np.array(list(itertools.chain.from_iterable(documents)), np.uint32)
    counts = np.array([len(document) for document in documents], np.int64)
    if sentences is None:
        return EncodedDocuments(ids, counts)
    assert [sum(lengths) for lengths in sentences] == counts.tolist()
    return EncodedDocuments(
        ids, counts, np.cumsum([n for lengths in sentences for n in lengths], dtype=np.int64)
    )


def publish(
    folder: Path,
    splits: dict[str, list[Shard]],
    *,
    repeats: dict[str, float] | None = None,
    dtype: str = "uint16",
    counts: np.ndarray | None = None,
) -> Manifest:
    """Write the manifest of finished shards."""
    counts = np.zeros(VOCAB, np.int64) if counts is None else counts
    manifest = Manifest(
        tokenizer=TokenizerEntry(fingerprint="f" * 32, vocab_size=VOCAB),
        dtype=dtype,
        splits={name: Split(shards=tuple(shards), num_text_bytes=7) for name, shards in splits.items()},
        repeats=repeats or {},
        token_counts=write_array(folder, "token_counts.bin", counts),
        provenance={"request": "r"},
    )
    save_manifest(folder, manifest)
    return manifest


def data_of(
    folder: Path,
    sources: dict[str, list[list[list[int]]]],
    repeats: dict[str, float] | None = None,
    split: str = "train",
) -> TokenData:
    """A folder with one split: for each source its shards, each a list of documents."""
    number, shards = itertools.count(), []
    for source, groups in sources.items():
        for documents in groups:
            written = write_shard(
                folder, split, next(number), [encoded(documents)], vocab_size=VOCAB, eos_id=EOS, source=source
            )
            shards.append(written.shard)
    publish(folder, {split: shards}, repeats=repeats)
    return open_split(folder, split)


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
        self._batches: list[EncodedDocuments] = []
        self._pending = 0

    def add(self, texts: Sequence[str]) -> None:
        """Encode some documents and add them."""
        batch = EncodedDocuments(*self.tokenizer.encode_batch(texts))
        self.num_text_bytes += sum(len(text.encode()) for text in texts)
        self._batches.append(batch)
        self._pending += len(batch.ids) + len(batch.counts)
        if self._pending >= self.tokens_per_shard:
            self._close()

    def _close(self) -> None:
        written = write_shard(
            self.folder,
            self.split,
            len(self._shards),
            self._batches,
            vocab_size=self.tokenizer.vocab_size,
            eos_id=self.tokenizer.eos_id,
        )
        self._shards.append(written.shard)
        self.token_counts += written.token_counts
        self._batches, self._pending = [], 0

    def finish(self) -> Split:
        """Write what is left and describe the split."""
        if self._pending:
            self._close()
        return Split(shards=tuple(self._shards), num_text_bytes=self.num_text_bytes)
