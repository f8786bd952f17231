"""Samples of two parts for next-sentence prediction: which stay together, and what else follows.

The index cuts documents into runs. In each epoch two of three runs with several units, drawn by key,
become a sample of label 0: first and second part of the run. Each third run becomes two samples of
label 1: its first and its second part, each with a part of another document of the source behind it.
So every sentence is used once an epoch, either as first or as true second part, and the labels are half
and half. A run of a single unit can only be the first part of a label 1, and the share of the divided
runs makes up for it as far as it can.

Cost: about twenty vector operations and some binary searches for a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...core.keyed import hash64, permute
from .borders import Borders
from .runs import Indexed
from .samples import Int64, Pieces

__all__ = ["Extend", "Pairs"]

# What becomes of a second part that has one unit: (borders, its start, its end, tokens wanted, tokens that
# there is room for) to its start and end.
Extend = Callable[[Borders, Int64, Int64, Int64, Int64], tuple[Int64, Int64]]
_WHOLE, _FIRST, _SECOND, _SINGLE = range(4)


@dataclass(frozen=True)
class _Draw:
    """What is drawn for some samples; int64 arrays of (B,).

    Attributes:
        runs: number of the run in the section.
        parts: what of the run it takes: all, its first or second part, or its single unit.
        splits: random bits that decide where the run is cut in two.
        partners: those that decide the run that gives the other part.
        units: those that decide with which unit that begins.
    """

    runs: Int64
    parts: Int64
    splits: Int64
    partners: Int64
    units: Int64


@dataclass(frozen=True)
class Pairs(Indexed):
    """The pairs of one source.

    Attributes:
        borders: of the data.
        room: tokens of both parts at most.
        extend: makes a random second part out of its first unit.
    """

    borders: Borders
    room: int
    extend: Extend

    @cached_property
    def _several(self) -> int:
        """Runs of more than one unit."""
        return len(self.section.starts) - len(self.section.singles)

    @cached_property
    def num_divided(self) -> int:
        """Runs of an epoch whose two parts get a random part each."""
        wanted = round((self._several - len(self.section.singles)) / 3)
        return min(max(0, wanted), self._several)

    @cached_property
    def number(self) -> int:
        """Samples of an epoch."""
        return len(self.section.starts) + self.num_divided

    def find(self, ranks: Int64) -> Pieces:
        """Look up pairs of this source, numbered from the start of training."""
        epochs, within = np.divmod(ranks, self.number)
        # Without shuffling every epoch is the first: the labels are still mixed, and never change.
        keys = epochs if self.order.shuffle else np.zeros_like(epochs)
        drawn = np.empty((5, len(ranks)), np.int64)
        for epoch in np.unique(keys).tolist():
            chosen = keys == epoch
            drawn[:, chosen] = self._draw(epoch, within[chosen])
        draw = _Draw(*drawn)
        own, second = self._divide(draw)
        is_random = draw.parts != _WHOLE
        if is_random.any():
            second[is_random] = self._random_parts(draw, own, second, is_random)
        starts = np.stack([own[:, 0], second[:, 0]], axis=1)
        stops = np.stack([own[:, 1], second[:, 1]], axis=1)
        return Pieces(starts, stops - starts, epochs, is_random.astype(np.int64))

    def _draw(self, epoch: int, within: Int64) -> Int64:
        """What samples of an epoch consist of, as the rows of `_Draw`."""
        order = permute(self.order.derive("order", epoch), within, self.number)
        num_whole = self._several - self.num_divided
        halves = order - num_whole
        of_single = halves - 2 * self.num_divided
        parts = np.where(halves < 0, _WHOLE, np.where(of_single < 0, _FIRST + halves % 2, _SINGLE))
        runs = np.empty_like(order)
        is_single = parts == _SINGLE
        if is_single.any():
            numbers = of_single[is_single]
            runs[is_single] = self.section.singles[numbers] + numbers
        ranks = np.where(halves < 0, order, num_whole + halves // 2)[~is_single]
        if len(ranks):
            ranks = permute(self.order.derive("role", epoch), ranks, self._several)
            # `singles` tells how many runs of several units lie before each single one.
            runs[~is_single] = ranks + np.searchsorted(self.section.singles, ranks, side="right")
        samples = 4 * runs + parts
        bits = [hash64(self.order.derive(name, epoch), samples) for name in ("partner", "unit")]
        # Both parts of a run must know of one cut.
        return np.stack([runs, parts, hash64(self.order.derive("split", epoch), runs), *bits])

    def _divide(self, draw: _Draw) -> tuple[Int64, Int64]:
        """First parts, and what stands behind each in its run (or beside it); ranges, int64 of (B, 2)."""
        starts = self.section.starts[draw.runs]
        stops = starts + self.section.lengths[draw.runs].astype(np.int64)
        units = self.borders.inside(starts, stops)
        left = _below(draw.splits, np.maximum(units.counts - 1, 1))
        cuts = np.where(draw.parts == _SINGLE, stops, units.ends[units.first + left])
        front, back = np.stack([starts, cuts], axis=1), np.stack([cuts, stops], axis=1)
        swapped = (draw.parts == _SECOND)[:, None]
        return np.where(swapped, back, front), np.where(swapped, front, back)

    def _random_parts(self, draw: _Draw, own: Int64, rest: Int64, chosen: Int64) -> Int64:
        """Ranges of other documents, each about as long as what it stands for; int64, (chosen, 2).

        Beside a single unit nothing stands, and the sequence is filled.
        """
        own, rest = own[chosen], rest[chosen]
        room = self.room - (own[:, 1] - own[:, 0])
        wanted = np.where(draw.parts[chosen] == _SINGLE, room, rest[:, 1] - rest[:, 0])
        runs = self._elsewhere(own[:, 0], draw.partners[chosen])
        starts = self.section.starts[runs]
        units = self.borders.inside(starts, starts + self.section.lengths[runs].astype(np.int64))
        rows = np.repeat(np.arange(len(starts)), units.counts)
        fits = units.ends - units.starts <= room[rows]
        counts = np.add.reduceat(fits.astype(np.int64), units.first)
        fits[units.first[counts == 0]] = True  # nothing fits: the first is cut
        before: Int64 = np.cumsum(fits) - fits
        places: Int64 = before - before[units.first][rows]
        picked = _below(draw.units[chosen], np.maximum(counts, 1))
        at = np.flatnonzero(fits & (places == picked[rows]))
        begins, ends = self.extend(self.borders, units.starts[at], units.ends[at], wanted, room)
        return np.stack([begins, np.minimum(ends, begins + room)], axis=1)

    def _elsewhere(self, positions: Int64, bits: Int64) -> Int64:
        """For each position a random run of another document."""
        starts, closings = self.borders.documents(positions)
        low = np.searchsorted(self.section.starts, starts, side="left")
        high = np.searchsorted(self.section.starts, closings, side="left")
        picked = _below(bits, len(self.section.starts) - (high - low))
        return picked + np.where(picked >= low, high - low, 0)


def _below(bits: Int64, limits: Int64) -> Int64:
    """Hashed bits as numbers below limits; the bias is below the limit times 2**-62."""
    return (bits & ((1 << 62) - 1)) % limits
