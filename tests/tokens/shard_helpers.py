"""Small data folders for tests: shards of chosen documents, and their manifest."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from maskwright.tokens.manifest import Manifest, Shard, Split, TokenizerEntry, save_manifest
from maskwright.tokens.shards import EncodedDocuments, TokenData, open_split, write_array, write_shard

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
