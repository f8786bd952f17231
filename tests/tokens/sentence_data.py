"""Small splits with ends of sentences for tests of the input formats, and what is known of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from shard_helpers import EOS, VOCAB, encoded, publish

from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.shards import TokenData, open_split, write_shard
from maskwright.tokens.stream import SampleStream, TokenBatch

BOS = 0
ONE_PART, PAIRS = ("full-sentences", "doc-sentences"), ("segment-pair", "sentence-pair")
ALL = ONE_PART + PAIRS
# A document is the lengths of its sentences; a shard some documents; a source some shards.
Document = list[int]
Sources = dict[str, list[list[Document]]]


def sentence_data(
    folder: Path, sources: Sources, repeats: dict[str, float] | None = None, *, sentences: bool = True
) -> TokenData:
    """Write the training split; ids count up from 5 within each document and come round."""
    number, shards = itertools.count(), []
    for source, groups in sources.items():
        for documents in groups:
            ids = [[5 + place % 290 for place in range(sum(lengths))] for lengths in documents]
            batch = encoded(ids, documents)
            written = write_shard(
                folder,
                "train",
                next(number),
                [batch],
                vocab_size=VOCAB,
                eos_id=EOS,
                source=source,
                sentences=sentences,
            )
            shards.append(written.shard)
    publish(folder, {"train": shards}, repeats=repeats)
    return open_split(folder, "train")


STORY = {
    "web": [
        [[5, 9, 3, 7, 12, 4], [], [8], [6, 6, 6, 6, 6, 6, 6]],
        [[20, 2, 45, 3], [11, 10], [1, 1, 1, 1, 1]],
    ],
    "wiki": [[[9, 14, 3, 3, 8], [4, 4, 4], [16, 2]]],
}


@contextlib.contextmanager
def opened(
    sources: Sources,
    name: str,
    *,
    length: int = 24,
    seed: int = 1,
    shuffle: bool = True,
    separators: int = 2,
    **options: float,
) -> Iterator[SampleStream]:
    """A stream over data that lasts as long as the block."""
    # Thousands of small files are written, and none is about power cuts.
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(os, "fsync"):
        data = sentence_data(Path(folder), sources)
        config = FormatConfig(name=name, **options)
        yield SampleStream(
            data, length, BOS, EOS, seed, shuffle=shuffle, format=config, separators=separators
        )


def rows(batch: TokenBatch, name: str = "ids") -> list[list[int]]:
    """What a batch says of the tokens of each sample."""
    return [part.tolist() for part in np.split(getattr(batch, name), np.cumsum(batch.lengths)[:-1])]


def library(folder: Path) -> tuple[Sources, TokenData]:
    """Two sources of a hundred documents or so; one comes three times an epoch."""
    rng = np.random.default_rng(5)
    sources = {
        name: [[rng.integers(1, 25, rng.integers(1, 20)).tolist() for _ in range(count)] for _ in range(2)]
        for name, count in (("web", 90), ("wiki", 40))
    }
    return sources, sentence_data(folder, sources, {"wiki": 3.0})


class Known:
    """Where sentences, documents and sources lie, counted the plain way.

    Attributes:
        sentences: (start, stop) of every sentence.
        document: number of the document of each token, a closing `</s>` included.
        source: name of the source of each token.
        closings: positions of the closing `</s>`.
    """

    def __init__(self, sources: Sources) -> None:
        self.sentences: list[tuple[int, int]] = []
        self.document: list[int] = []
        self.source: list[str] = []
        self.closings: list[int] = []
        number = 0
        for name, groups in sources.items():
            for lengths in itertools.chain.from_iterable(groups):
                for length in lengths:
                    start = len(self.document)
                    self.sentences.append((start, start + length))
                    self.document += [number] * length
                self.closings.append(len(self.document))
                self.document.append(number)
                self.source += [name] * (sum(lengths) + 1)
                number += 1

    def tokens(self, source: str) -> set[int]:
        """Positions of the source's tokens, closing ones left out."""
        return {place for place, name in enumerate(self.source) if name == source} - set(self.closings)

    def documents_of(self, source: str) -> list[list[tuple[int, int]]]:
        """The sentences of each document of a source that has any."""
        mine = [pair for pair in self.sentences if self.source[pair[0]] == source]
        groups = itertools.groupby(mine, key=lambda pair: self.document[pair[0]])
        return [list(group) for _, group in groups]


def cut_long(sentences: Sequence[tuple[int, int]], longest: int) -> list[tuple[int, int]]:
    """Cut sentences that are too long, the plain way."""
    return [
        (place, min(place + longest, stop))
        for start, stop in sentences
        for place in range(start, stop, longest)
    ]


def own_parts(stream, first: int, count: int) -> list[tuple[int, int, int]]:
    """(start, stop, epoch) of all that samples hold as their own: no random second parts."""
    pieces = stream.pieces(first, count)
    found = []
    for row in range(count):
        parts = pieces.starts.shape[1]
        if pieces.next_labels is not None and pieces.next_labels[row] == 1:
            parts = 1
        for part in range(parts):
            start = int(pieces.starts[row, part])
            found.append((start, start + int(pieces.lengths[row, part]), int(pieces.epochs[row])))
    return found


def same_batches(one, other) -> bool:
    """Whether two batches agree in every field."""
    names = ("ids", "positions", "lengths", "samples", "epoch", "token_types", "next_labels")
    return all(
        (getattr(one, name) is None and getattr(other, name) is None)
        or np.array_equal(getattr(one, name), getattr(other, name))
        for name in names
    )
