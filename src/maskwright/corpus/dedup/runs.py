"""Runs of words of known texts, and a fast look for them in many other texts.

All runs of the searched texts are hashed at once and looked up in a bit table that fewer than one in
thirty passes by chance, then by bisection among the sorted hashes. Memory: 16 bytes a run, and 4 to 8
for the table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .words import Codes, Hashes, Numbers, Words, hash_words, rolling_hashes

__all__ = ["Runs", "runs_of"]

_BITS_PER_RUN = 32


class Runs:
    """Runs of equal length, by ascending hash; runs with one hash in the order given.

    Args:
        length: words in a run.
        hashes: uint64 (N,).
        texts: uint32 (N,), number of the text that has the run.
        starts: uint32 (N,), its first word in that text.
    """

    def __init__(self, length: int, hashes: Hashes, texts: Codes, starts: Codes) -> None:
        order = np.argsort(hashes, kind="stable")
        self.length = length
        self.hashes, self.texts, self.starts = hashes[order], texts[order], starts[order]
        bits = max(len(hashes) * _BITS_PER_RUN, 1 << 10).bit_length()
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits - 3, np.uint8)
        places = self.hashes >> self._shift
        np.bitwise_or.at(self._table, places >> np.uint64(3), _bits(places))

    def find(self, words: Words) -> tuple[Numbers, Numbers]:
        """Look for the runs.

        Args:
            words: of the texts to search.

        Returns:
            Numbers of the words where a run seems to start, ascending, and the number of that run. All
            words of a hit belong to one text. Equal hashes are all that is known.
        """
        found = [np.empty((2, 0), np.int64)]
        for start, block in rolling_hashes(words.hashes, self.length) if len(self.hashes) else ():
            places = block >> self._shift
            near = np.flatnonzero(self._table[places >> np.uint64(3)] & _bits(places))
            first = np.searchsorted(self.hashes, block[near])
            known = self.hashes[np.minimum(first, len(self.hashes) - 1)] == block[near]
            near, first = near[known], first[known]
            count = np.searchsorted(self.hashes, block[near], "right") - first
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            found.append(np.stack((np.repeat(near, count) + start, np.repeat(first, count) + within)))
        positions, runs = np.concatenate(found, axis=1)
        ends = words.offsets[np.searchsorted(words.offsets, positions, "right")]
        inside = positions + self.length <= ends
        return positions[inside], runs[inside]


def runs_of(texts: Sequence[str], length: int) -> tuple[Hashes, Codes, Codes]:
    """All runs of some texts.

    Args:
        texts: any number.
        length: words in a run.

    Returns:
        uint64 (N,) hashes, uint32 (N,) numbers of the texts, uint32 (N,) first words.
    """
    words = hash_words(texts)
    hashes = np.concatenate([np.empty(0, np.uint64), *(r for _, r in rolling_hashes(words.hashes, length))])
    counts = np.diff(words.offsets)
    text = np.repeat(np.arange(len(texts), dtype=np.uint32), counts)[: len(hashes)]
    start = np.arange(len(hashes)) - words.offsets[text]
    inside = start + length <= counts[text]
    return hashes[inside], text[inside], start[inside].astype(np.uint32)


def _bits(places: Hashes) -> npt.NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (places & np.uint64(7)).astype(np.uint8))
