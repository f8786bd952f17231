"""What the rules count in a text, counted once and shared by all rules that look at it.

`measure(text)` remembers the last text it was asked about, so a chain of rules that leaves the text
alone shares one split into lines, one into words and one count of characters; each is made when
first asked for. Words and characters are numpy arrays of 64-bit hashes rather than Python strings,
which makes the n-gram rules about ten times faster than counting tuples of words. Two different
words share a hash with a probability near 1e-19, which no limit on a share can notice.

Cost: about 2 ns a character for the counts and 8 ns a character for the words on one core; 12 bytes
of memory a word, however long the text, because it is read in blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HAN", "CharacterCounts", "Measured", "UnitHashes", "Units", "measure", "share"]

UnitHashes = NDArray[np.uint64]

# Chinese characters: the unified ideographs of all planes, the compatibility ones, and U+3007 (zero).
HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

# Blocks that fit the second-level cache. A word longer than a block counts as several words.
_BLOCK = 1 << 16
_MULTIPLIER = 0x9E3779B97F4A7C15
_WORD_BITS = (1 << 64) - 1
# From here on no character is assigned that any class below holds.
_NUM_CODES = 0x40000
_OTHER, _SPACE, _DIGIT, _LETTER, _HAN = range(5)


@dataclass(frozen=True, slots=True)
class CharacterCounts:
    """How many characters of each kind a text holds.

    Args:
        visible: characters that are not white space.
        digits: decimal digits of any script.
        letters: letters of any script, Chinese characters among them.
        han: Chinese characters.
    """

    visible: int
    digits: int
    letters: int
    han: int


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The words, or the visible characters, of a text in order.

    Args:
        hashes: one 64-bit hash a unit, shape [num_units].
        lengths: length of each unit in characters, shape [num_units].
        num_alphabetic: how many units hold at least one letter.
    """

    hashes: UnitHashes
    lengths: NDArray[np.int32]
    num_alphabetic: int

    def __len__(self) -> int:
        return len(self.hashes)


class Measured:
    """Lines, words and character counts of one text, each made when first asked for.

    Args:
        text: any text.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Filled by `ngrams.levels_of`: how far the walk over n-grams of this text has come.
        self.walks: dict[str, Any] = {}

    @cached_property
    def lines(self) -> list[str]:
        """Lines without white space around them; empty ones left out."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What stands between empty lines, without white space around it."""
        return [part for part in map(str.strip, re.split(r"\n\s*\n", self.text)) if part]

    @cached_property
    def counts(self) -> CharacterCounts:
        """Counts of characters by kind."""
        totals = [0] * 5
        size = 0
        for _, classes in _blocks(self.text):
            size += len(classes)
            for kind in (_SPACE, _DIGIT, _LETTER, _HAN):
                totals[kind] += int(np.count_nonzero(classes == kind))
        letters = totals[_LETTER] + totals[_HAN]
        return CharacterCounts(size - totals[_SPACE], totals[_DIGIT], letters, totals[_HAN])

    @cached_property
    def words(self) -> Units:
        """What stands between white space."""
        return _joined([_block_words(codes, classes) for codes, classes in _blocks(self.text)])

    @cached_property
    def characters(self) -> Units:
        """Every visible character as a unit of its own, for scripts without spaces."""
        return _joined([_block_characters(codes, classes) for codes, classes in _blocks(self.text)])


_last = Measured("")


def measure(text: str) -> Measured:
    """The measurements of a text; asked again about the same string, the same object.

    Args:
        text: any text.
    """
    global _last
    last = _last  # one read: another thread may put its own text there at any time
    if last.text is not text:
        last = Measured(text)
        _last = last
    return last


def share(part: float, whole: float) -> float:
    """Part of a whole, 0 where there is nothing to take a part of."""
    return part / whole if whole else 0.0


def _blocks(text: str) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint8]]]:
    """Code points and their classes, cut at white space where there is some."""
    table = _class_table()
    start = 0
    while start < len(text):
        stop = start + _BLOCK
        if stop < len(text):
            space = max(text.rfind(" ", start + 1, stop), text.rfind("\n", start + 1, stop))
            stop = stop if space < 0 else space
        codes = np.frombuffer(text[start:stop].encode("utf-32-le", "surrogatepass"), np.uint32)
        yield codes, table.take(codes, mode="clip")
        start = stop


def _block_words(codes: NDArray[np.uint32], classes: NDArray[np.uint8]) -> Units:
    solid = np.zeros(len(codes) + 2, np.bool_)
    np.not_equal(classes, _SPACE, out=solid[1:-1])
    bounds = (solid[1:] != solid[:-1]).nonzero()[0]
    starts, ends = bounds[::2], bounds[1::2]
    if not len(starts):
        return _NO_UNITS
    # A word's hash is a polynomial in its characters: the difference of two running sums, brought
    # back to power 0 by the inverse of the multiplier (it is odd, so it has one modulo 2**64).
    powers, inverses = _power_tables()
    terms = codes.astype(np.uint64)
    terms += np.uint64(1)
    terms *= powers[: len(codes)]
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(terms, out=sums[1:])
    hashes = (sums[ends] - sums[starts]) * inverses[starts]
    alphabetic = np.logical_or.reduceat(classes >= _LETTER, starts)
    return Units(_mixed(hashes), (ends - starts).astype(np.int32), int(np.count_nonzero(alphabetic)))


def _block_characters(codes: NDArray[np.uint32], classes: NDArray[np.uint8]) -> Units:
    visible = classes != _SPACE
    hashes = codes[visible].astype(np.uint64) + np.uint64(1)
    hashes *= np.uint64(_MULTIPLIER)
    letters = int(np.count_nonzero(classes >= _LETTER))
    return Units(_mixed(hashes), np.ones(len(hashes), np.int32), letters)


def _mixed(hashes: UnitHashes) -> UnitHashes:
    """Spread the high bits, which depend on every character, over the low ones."""
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0xD6E8FEB86659FD93)
    hashes ^= hashes >> np.uint64(32)
    return hashes


_NO_UNITS = Units(np.empty(0, np.uint64), np.empty(0, np.int32), 0)


def _joined(blocks: list[Units]) -> Units:
    if len(blocks) == 1:
        return blocks[0]
    if not blocks:
        return _NO_UNITS
    return Units(
        np.concatenate([block.hashes for block in blocks]),
        np.concatenate([block.lengths for block in blocks]),
        sum(block.num_alphabetic for block in blocks),
    )


@cache
def _power_tables() -> tuple[UnitHashes, UnitHashes]:
    """Powers of the multiplier and of its inverse modulo 2**64."""
    inverse = pow(_MULTIPLIER, -1, 1 << 64)
    tables = np.empty((2, _BLOCK), np.uint64)
    for row, base in enumerate((_MULTIPLIER, inverse)):
        power = 1
        for index in range(_BLOCK):
            tables[row, index] = power
            power = power * base & _WORD_BITS
    return tables[0], tables[1]


@cache
def _class_table() -> NDArray[np.uint8]:
    """The class of every code point below `_NUM_CODES`, as Python's own string methods see it."""
    characters = "".join(map(chr, range(_NUM_CODES)))
    table = np.full(_NUM_CODES, _OTHER, np.uint8)
    for kind, is_kind in ((_SPACE, str.isspace), (_DIGIT, str.isdecimal), (_LETTER, str.isalpha)):
        table[np.fromiter(map(is_kind, characters), np.bool_, _NUM_CODES)] = kind
    for match in re.finditer(f"[{HAN}]+", characters):
        run = table[match.start() : match.end()]
        run[run == _LETTER] = _HAN  # the blocks also hold places without a character
    table[ord("\u3007")] = _HAN  # a numeral to Python
    table[-1] = _OTHER  # the last entry also stands for every code point beyond the table
    return table
