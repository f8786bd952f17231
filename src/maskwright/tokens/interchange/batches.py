"""All documents of a split in order, some millions of tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..shards import TokenData

__all__ = ["DocumentBatch", "document_batches"]

TOKENS_PER_BATCH = 1 << 22


class DocumentBatch(NamedTuple):
    """Some documents that follow each other.

    Attributes:
        ids: their tokens laid end to end, each document closed by `</s>`; int64.
        counts: tokens of each, the closing one included; int64, (D,).
        first: number of the first one in the split.
    """

    ids: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    first: int

    @property
    def open_ids(self) -> npt.NDArray[np.int64]:
        """The tokens without the closing ones."""
        is_text = np.ones(len(self.ids), np.bool_)
        is_text[np.cumsum(self.counts) - 1] = False
        return self.ids[is_text]


def document_batches(data: TokenData) -> Iterator[DocumentBatch]:
    """Read a split from its first document to its last.

    Args:
        data: the split.

    Raises:
        ShardError: a shard cannot be read.
    """
    base = number = 0
    for place, shard in enumerate(data.shards):
        counts = data.document_lengths(place, shard.num_documents) + 1
        ends = np.cumsum(counts)
        first = 0
        while first < len(counts):
            start = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, start + TOKENS_PER_BATCH, side="right")))
            ids = data.tokens(base + start, int(ends[last - 1]) - start)
            yield DocumentBatch(ids, counts[first:last], number + first)
            first = last
        base, number = base + shard.num_tokens, number + shard.num_documents
