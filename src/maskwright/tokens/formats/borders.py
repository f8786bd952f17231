"""Where sentences and documents end, read from the shards as far as it is needed.

A unit is what a format never cuts further: a sentence, or a piece of one that is too long. Units do
not hold the closing `</s>` of a document. Cost: for a batch a binary search a sample in each file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..shards import TokenData
from .samples import Int64, ranges

__all__ = ["Borders", "RaggedUnits", "Units"]

# Sentences handled at once when a shard is read from end to end.
BLOCK_SENTENCES = 1 << 18


@dataclass(frozen=True)
class Units:
    """The units of some whole documents.

    Attributes:
        starts: position of the first token of each; int64, (U,).
        ends: position behind its last token; int64, (U,).
        stops: number of the first unit of the next document; int64, (U,).
        num_cut: sentences that were too long to stay whole.
    """

    starts: Int64
    ends: Int64
    stops: Int64
    num_cut: int = 0

    def after(self, others: Units) -> Units:
        """These units behind others."""
        joined = np.concatenate(
            [np.full(len(others.starts), len(others.starts)), self.stops + len(others.starts)]
        )
        starts, ends = np.concatenate([others.starts, self.starts]), np.concatenate([others.ends, self.ends])
        return Units(starts, ends, joined, self.num_cut)

    def from_unit(self, number: int) -> Units:
        """The units from one on."""
        return Units(self.starts[number:], self.ends[number:], self.stops[number:] - number)


@dataclass(frozen=True)
class RaggedUnits:
    """The units of some ranges, one range after the other.

    Attributes:
        first: number of the first unit of each range; int64, (B,).
        counts: units of each range; int64, (B,).
        starts: position of the first token of each unit; int64, (U,).
        ends: position behind its last token; int64, (U,).
    """

    first: Int64
    counts: Int64
    starts: Int64
    ends: Int64


class Borders:
    """Looks up ends of sentences and documents of a split that has them.

    Args:
        data: the split.
        longest: tokens of the longest unit.
    """

    def __init__(self, data: TokenData, longest: int) -> None:
        self.data, self.longest = data, longest

    def _base(self, shard: int) -> int:
        return int(self.data.token_ends[shard]) - self.data.shards[shard].num_tokens

    def _by_shard(self, positions: Int64) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
        """Shards of some positions: number, position of the first token, and which positions are its."""
        shards = np.searchsorted(self.data.token_ends, positions, side="right")
        for shard in np.unique(shards).tolist():
            yield shard, self._base(shard), shards == shard

    def units(self, shard: int) -> Iterator[Units]:
        """All units of a shard, some whole documents at a time."""
        documents, sentences = self.data.ends(shard, "documents"), self.data.ends(shard, "sentences")
        base, start = self._base(shard), 0
        counts = np.searchsorted(sentences, documents, side="left")
        first = before = 0
        while first < len(documents):
            last = max(first + 1, int(np.searchsorted(counts, before + BLOCK_SENTENCES, side="right")))
            after = int(counts[last - 1])
            ends = documents[first:last].astype(np.int64)
            yield _units(base, start, ends, sentences[before:after].astype(np.int64), self.longest)
            first, before, start = last, after, int(ends[-1])

    def documents(self, positions: Int64) -> tuple[Int64, Int64]:
        """The document of each position: where it begins, and where the `</s>` is that closes it.

        Args:
            positions: of tokens; int64, (B,).
        """
        starts, closings = np.empty_like(positions), np.empty_like(positions)
        for shard, base, mine in self._by_shard(positions):
            ends = self.data.ends(shard, "documents")
            number = np.searchsorted(ends, (positions[mine] - base).astype(ends.dtype), side="right")
            before = ends[np.maximum(number - 1, 0)].astype(np.int64)
            starts[mine] = base + np.where(number > 0, before, 0)
            closings[mine] = base + ends[number].astype(np.int64) - 1
        return starts, closings

    def inside(self, starts: Int64, stops: Int64) -> RaggedUnits:
        """The units of some ranges that begin and end with a unit, each within one document.

        Args:
            starts: position of the first token of each range; int64, (B,).
            stops: position behind its last token; int64, (B,).
        """
        low, counts = np.empty_like(starts), np.empty_like(starts)
        for shard, base, mine in self._by_shard(starts):
            ends = self.data.ends(shard, "sentences")
            low[mine] = np.searchsorted(ends, (starts[mine] - base).astype(ends.dtype), side="right")
            high = np.searchsorted(ends, (stops[mine] - base).astype(ends.dtype), side="left")
            counts[mine] = np.maximum(high - low[mine], 0)
        last = np.cumsum(counts + 1) - 1
        first = last - counts
        found = np.empty(int(last[-1]) + 1 if len(last) else 0, np.int64)
        for shard, base, mine in self._by_shard(starts):
            column = self.data.ends(shard, "sentences")[ranges(low[mine], counts[mine])]
            found[ranges(first[mine], counts[mine])] = base + column.astype(np.int64)
        found[last] = stops
        begins = np.concatenate([[0], found[:-1]]) if len(found) else found
        begins[first] = starts
        pieces, begins, found = _cut_long(begins, found, self.longest)
        sizes = np.add.reduceat(pieces, first) if len(first) else first
        return RaggedUnits(np.cumsum(sizes) - sizes, sizes, begins, found)

    def around(self, targets: Int64, first: Int64, last: Int64) -> tuple[Int64, Int64]:
        """Where sentences begin or end beside some places in documents.

        Args:
            targets: positions; int64, (B,).
            first: where the document of each begins; int64, (B,).
            last: where its closing `</s>` is; int64, (B,).

        Returns:
            The last such position up to the target, and the first from it on; int64, two arrays of (B,).
        """
        targets = np.clip(targets, first, last)
        below, above = first.copy(), last.copy()
        for shard, base, mine in self._by_shard(first):
            ends = self.data.ends(shard, "sentences")
            places = (targets[mine] - base).astype(ends.dtype)
            behind = np.searchsorted(ends, places, side="right")
            for found, numbers in ((below, behind - 1), (above, np.searchsorted(ends, places))):
                is_there = (numbers >= 0) & (numbers < len(ends))
                rows = np.flatnonzero(mine)[is_there]
                found[rows] = np.clip(
                    base + ends[numbers[is_there]].astype(np.int64), first[rows], last[rows]
                )
        above[targets == first] = first[targets == first]
        return below, above


def _units(base: int, start: int, documents: Int64, sentences: Int64, longest: int) -> Units:
    """Units of whole documents, all numbers counted in the tokens of their shard.

    Args:
        base: position of the shard's first token.
        start: where the first document begins.
        documents: where each ends.
        sentences: where their sentences end.
        longest: tokens of the longest unit.
    """
    begins = np.concatenate([[start], documents[:-1]])
    closings = (documents - 1)[documents - 1 > begins]
    # Data of others may leave out the last end of a document.
    places = np.minimum(np.searchsorted(sentences, closings), max(0, len(sentences) - 1))
    if len(closings) and (not len(sentences) or (sentences[places] != closings).any()):
        sentences = np.union1d(sentences, closings)
    numbers = np.searchsorted(documents, sentences, side="right")
    filled = sentences > begins[numbers]
    ends, numbers = sentences[filled], numbers[filled]
    starts = begins[numbers]
    same = numbers[1:] == numbers[:-1]
    starts[1:][same] = ends[:-1][same]
    pieces, starts, ends = _cut_long(starts, ends, longest)
    numbers = np.repeat(numbers, pieces)
    stops = np.searchsorted(numbers, numbers, side="right")
    return Units(base + starts, base + ends, stops, int(np.count_nonzero(pieces > 1)))


def _cut_long(starts: Int64, ends: Int64, longest: int) -> tuple[Int64, Int64, Int64]:
    """Cut what is too long: pieces of each range, and their starts and ends."""
    pieces = -(-(ends - starts) // longest)
    if not (pieces > 1).any():
        return pieces, starts, ends
    places = ranges(np.zeros_like(pieces), pieces)
    begins = np.repeat(starts, pieces) + places * longest
    return pieces, begins, np.minimum(begins + longest, np.repeat(ends, pieces))
