"""Shares of a text that sit in repeated n-grams of words or of characters.

The obvious way, counting every n-gram of every size, costs nine passes over all words. Here the sizes
are walked upwards and only places that can still be repeated are carried on: an n-gram occurs twice
only if the two shorter n-grams inside it do. Places are counted in a table of buckets, so a place may
be carried on by accident but is never lost; a share is worked out exactly, by sorting, only where the
bound from the buckets does not already keep the document. In clean text few places outlive size four.

Source: Rae et al. 2021, appendix A1.1 and table A1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .measured import Measured, UnitHashes, Units, share

__all__ = ["exceeded_duplicates", "exceeded_top", "levels_of"]

_MULTIPLIER = 0xBF58476D1CE4E5B9
_FINAL_MULTIPLIER = np.uint64(0x94D049BB133111EB)
_MAX_BUCKET_BITS = 24

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """Places whose n-gram may occur twice.

    Args:
        size: n.
        places: index of the first unit of each n-gram, rising, shape [num_places].
        hashes: hash of each n-gram, shape [num_places].
        counts: how often each n-gram occurs at most, shape [num_places].
    """

    size: int
    places: Places
    hashes: UnitHashes
    counts: NDArray[np.int64]


class _Walk:
    """Levels of rising size over the units of one text; it goes forwards and starts again if asked back."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self.ends = np.zeros(len(units) + 1, np.int64)
        np.cumsum(units.lengths, out=self.ends[1:])
        self._level: _Level | None = None

    @property
    def num_characters(self) -> int:
        return int(self.ends[-1])

    def level(self, size: int) -> _Level:
        level = self._level
        if level is None or level.size > size:
            level = _thinned(1, np.arange(len(self.units)), self.units.hashes)
        while level.size < size:
            level = self._longer(level, min(size, 2 * level.size))
        self._level = level
        return level

    def lengths(self, level: _Level) -> NDArray[np.int64]:
        """Characters in the n-gram at each place."""
        lengths: NDArray[np.int64] = self.ends[level.places + level.size] - self.ends[level.places]
        return lengths

    def longest(self, size: int) -> int:
        """Characters of the longest n-gram of a size, repeated or not."""
        if size >= len(self.units):
            return self.num_characters
        return int((self.ends[size:] - self.ends[:-size]).max())

    def covered(self, places: Places, size: int) -> int:
        """Characters inside the n-grams at some places, each counted once."""
        if not len(places):
            return 0
        # Rising places: an n-gram adds what lies beyond the end of the one before it.
        stops = places + size
        starts = places.copy()
        np.maximum(starts[1:], stops[:-1], out=starts[1:])
        return int((self.ends[stops] - self.ends[starts]).sum())

    def _longer(self, level: _Level, size: int) -> _Level:
        """The level of a size up to twice as large: an n-gram is told by its start and its end."""
        step = size - level.size
        # Every shorter n-gram inside has to be there: as many places on, as many units on.
        alive = (level.places[step:] == level.places[:-step] + step).nonzero()[0]
        # A multiplier of its own for each size: with one for all, `a b` before `c d` and `a c` before
        # `b d` would come out alike.
        hashes = level.hashes[alive] * np.uint64(pow(_MULTIPLIER, 2 * size + 1, 1 << 64))
        hashes += level.hashes[alive + step]
        return _thinned(size, level.places[alive], hashes)


def levels_of(measured: Measured, unit: str) -> _Walk:
    """The walk over n-grams of a text, shared by the rules that look at it.

    Args:
        measured: the text.
        unit: `words` or `characters`.
    """
    walk: _Walk | None = measured.walks.get(unit)
    if walk is None:
        walk = _Walk(measured.words if unit == "words" else measured.characters)
        measured.walks[unit] = walk
    return walk


def exceeded_top(measured: Measured, unit: str, limits: Mapping[int, float]) -> tuple[int, float] | None:
    """The first size whose most frequent n-gram holds more of the text than allowed.

    Args:
        measured: the text.
        unit: `words` or `characters`.
        limits: largest share of the characters (white space left out), by n, in rising order.

    Returns:
        n and the share, or None if every size keeps its limit. Among n-grams that occur equally
        often the one with the most characters counts; overlapping occurrences count once.
    """
    walk = levels_of(measured, unit)
    lowest = min(limits.values()) * walk.num_characters
    longest = walk.longest(max(limits))
    for size, limit in limits.items():
        level = walk.level(size)
        if not len(level.places) or level.counts.max() * longest <= lowest:
            return None  # no longer n-gram occurs more often
        lengths = walk.lengths(level)
        if (level.counts * lengths).max() <= limit * walk.num_characters:
            continue
        _, inverse, counts = np.unique(level.hashes, return_inverse=True, return_counts=True)
        often = counts[inverse]
        candidates = ((often == often.max()) & (often > 1)).nonzero()[0]
        if len(candidates):
            top = candidates[np.argmax(lengths[candidates])]
            places = level.places[inverse == inverse[top]]
            value = share(walk.covered(places, size), walk.num_characters)
            if value > limit:
                return size, value
    return None


def exceeded_duplicates(
    measured: Measured, unit: str, limits: Mapping[int, float]
) -> tuple[int, float] | None:
    """The first size of which repeated n-grams hold more of the text than allowed.

    Args:
        measured: the text.
        unit: `words` or `characters`.
        limits: largest share of the characters (white space left out), by n, in rising order.

    Returns:
        n and the share, or None if every size keeps its limit. The first occurrence of an n-gram is
        no repetition; characters in overlapping repetitions count once.
    """
    walk = levels_of(measured, unit)
    lowest = min(limits.values()) * walk.num_characters
    for size, limit in limits.items():
        level = walk.level(size)
        covered = walk.covered(level.places, size)
        if covered <= lowest:
            return None  # longer n-grams cover no more than shorter ones
        if covered <= limit * walk.num_characters:
            continue
        _, first = np.unique(level.hashes, return_index=True)
        later = np.ones(len(level.places), np.bool_)
        later[first] = False
        value = share(walk.covered(level.places[later], size), walk.num_characters)
        if value > limit:
            return size, value
    return None


def _thinned(size: int, places: Places, hashes: UnitHashes) -> _Level:
    """A level with only the places whose bucket is met more than once."""
    if not len(places):
        return _Level(size, places, hashes, np.empty(0, np.int64))
    bits = min(_MAX_BUCKET_BITS, len(places).bit_length() + 1)
    spread = hashes ^ (hashes >> np.uint64(31))
    spread *= _FINAL_MULTIPLIER
    spread >>= np.uint64(64 - bits)
    buckets = spread.view(np.int64)
    counts = np.bincount(buckets)[buckets]
    alive = (counts > 1).nonzero()[0]
    return _Level(size, places[alive], hashes[alive], counts[alive])
