"""Spans: runs of whole words of random length, each replaced as one.

Every word begins a span with the same small chance, and a span takes a random number of words. A
word is masked if a span that begins in it, or in a word shortly before it, reaches it, so a mask
stays a pure function of the position. The chance is solved for so that words are masked at the
asked rate. Spans end with their document. At its beginning a document gets imagined words before
it whose spans may reach in; without them its first words would be masked less often.

Source: SpanBERT (Joshi and others, 2020; arXiv 1907.10529), section 3.1: whole words, lengths from
a geometric law with p = 0.2 up to 10 words (3.8 on average, so longer ones are drawn again), and a
span becomes `<mask>`, random tokens or itself as a whole. We deviate in the budget: the paper draws
spans until 15 % of a sequence are used up; here the rate holds on average and spans may overlap.

Costs one look at the words before each window and about eighty vector operations a word, on the
host.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ...core.keyed import derive_key, hash64, to_unit
from .unit import ArrayT, Draw, WordBorders, from_host, host_word_starts, to_host

__all__ = ["Spans", "begin_chance", "reach_chances"]

_Int64 = npt.NDArray[np.int64]
# Halvings after which a chance is as exact as a double can hold.
_HALVINGS = 60


@dataclass(frozen=True)
class Spans:
    """Chooses runs of words.

    Attributes:
        seed: the run's seed.
        borders: where words and documents begin.
        p: chance that a span ends after each of its words.
        longest: most words of a span.
    """

    seed: int
    borders: WordBorders
    p: float
    longest: int

    def draw(self, positions: ArrayT, epoch: int, rate: float) -> Draw:
        """Choose the positions that a span covers; the nearest span that covers a word is its leader."""
        words = host_word_starts(self.borders, positions)
        inside = words >= 0
        firsts, inverse = np.unique(words[inside], return_inverse=True)
        lasts = np.full(len(firsts), -1, np.int64)
        np.maximum.at(lasts, inverse, to_host(positions)[inside])
        places, rows = _with_earlier(self.borders, firsts, lasts, self.longest - 1)
        covered, leaders = self._cover(places, epoch, rate)
        chosen, leading = np.zeros(words.shape, bool), words.copy()
        chosen[inside], leading[inside] = covered[rows][inverse], leaders[rows][inverse]
        return Draw(*(from_host(values, positions) for values in (chosen, leading, words)))

    def _cover(self, places: _Int64, epoch: int, rate: float) -> tuple[npt.NDArray[np.bool_], _Int64]:
        """Which words in a row are covered, and where the span begins that does it."""
        reaches = reach_chances(self.p, self.longest)
        begins = to_unit(hash64(derive_key(self.seed, "span", epoch), places))
        lengths = to_unit(hash64(derive_key(self.seed, "span length", epoch), places))
        starting = begins < begin_chance(rate, self.p, self.longest)
        covered, leaders = np.zeros(len(places), bool), places.copy()
        for distance in range(min(self.longest, len(places)) - 1, -1, -1):
            sources = slice(0, len(places) - distance)
            hit = starting[sources] & (lengths[sources] < reaches[distance])
            covered[distance:] |= hit
            leaders[distance:][hit] = places[sources][hit]
        return covered, leaders

    def clustering(self, rate: float) -> float:
        """How much more the number of masked words varies because neighbours are masked together.

        Two words `h` apart are both free of masks if no span reaches the first, and none that
        begins after it reaches the second; the covariances of all `h` add up.
        """
        chance = begin_chance(rate, self.p, self.longest)
        reaches = reach_chances(self.p, self.longest)
        free, total, neither = 1 - rate, 0.0, 1 - rate
        for reach in reaches[:-1]:
            neither *= 1 - chance * reach
            total += neither - free * free
        return 1 + 2 * total / (rate * free)


@lru_cache(maxsize=64)
def reach_chances(p: float, longest: int) -> tuple[float, ...]:
    """The chance that a span is longer than 0, 1, ... `longest` - 1 words.

    Args:
        p: chance that it ends after each word.
        longest: most words; longer ones are drawn again.
    """
    # Products and not powers, which may differ in the last bit from one machine to another.
    tails = list(itertools.accumulate([1 - p] * longest, lambda tail, factor: tail * factor, initial=1.0))
    return tuple((tail - tails[longest]) / (1 - tails[longest]) for tail in tails[:longest])


@lru_cache(maxsize=64)
def begin_chance(rate: float, p: float, longest: int) -> float:
    """The chance that a word begins a span for which words are masked at the asked rate.

    A word stays free if none of the words up to `longest` - 1 before it begins a span that reaches
    it: `1 - rate = product of (1 - chance * reach)`. Solved by halving.

    Args:
        rate: share of words to mask, above 0 and below 1.
        p: chance that a span ends after each word.
        longest: most words of a span.
    """
    reaches = reach_chances(p, longest)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        free = 1.0
        for reach in reaches:
            free *= 1 - middle * reach
        low, high = (middle, high) if 1 - free < rate else (low, middle)
    return (low + high) / 2


def _with_earlier(borders: WordBorders, firsts: _Int64, lasts: _Int64, count: int) -> tuple[_Int64, _Int64]:
    """Put words in a row together with those before them, so that a shift finds a word's predecessors.

    Args:
        borders: where words and documents begin.
        firsts: first positions of words, ascending and different.
        lasts: the last known position of each of them.
        count: predecessors that each of them needs.

    Returns:
        `(places, rows)`: first positions of all words in order, where `count` imagined words with
        numbers below -1 of their own stand before each document; and where `firsts` are in them.
    """
    documents = borders.document_starts(firsts)
    found, openings = [firsts], [firsts[firsts == documents]]
    # To ask for single words is dear, and inside a window the word before is known.
    known = np.append(-1, lasts[:-1]) == firsts - 1
    edge = firsts[~known & (firsts > documents)]
    for _ in range(count):
        if not len(edge):
            break
        # Two windows may meet in a word that one of them knows.
        edge = np.setdiff1d(borders.starts(edge - 1), firsts)
        inner = edge > borders.document_starts(edge)
        found.append(edge)
        openings.append(edge[~inner])
        edge = edge[inner]
    real, opening = np.sort(np.concatenate(found)), np.sort(np.concatenate(openings))
    imagined = -2 - (opening[:, None] * count + np.arange(count)[::-1])
    places = np.insert(real, np.repeat(np.searchsorted(real, opening), count), imagined.ravel())
    rows = np.searchsorted(real, firsts) + count * np.searchsorted(opening, firsts, side="right")
    return places, rows
