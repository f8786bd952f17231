"""Which class each character belongs to where a text is cut into words: one byte a code point.

The classes are those of GPT-2's splitter (letters, digits, white space, the rest), with characters of
scripts that write no spaces between words set apart. The table is made once a process, in some tens
of milliseconds, and holds 200 KB.
"""

from __future__ import annotations

import unicodedata
from enum import IntEnum
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["CharacterClass", "character_classes"]

# Every later code point is neither a letter nor a digit: tags, variation selectors, private use.
_SIZE = 0x32400
_WHITE = (range(0x09, 0x0E), (0x20, 0x85, 0xA0, 0x1680), range(0x2000, 0x200B), (0x2028, 0x2029))
_MORE_WHITE = (0x202F, 0x205F, 0x3000)
_KANA = ((0x3040, 0x3100), (0x31F0, 0x3200))
_HAN = ((0x3005, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, _SIZE))


class CharacterClass(IntEnum):
    """Class of a character.

    `SPACE` is U+0020 alone, which joins the word behind it; `WHITE` is all other white space. `HAN` are
    Chinese characters with their marks of repetition, `KANA` the Japanese syllables.
    """

    OTHER = 0
    LETTER = 1
    DIGIT = 2
    HAN = 3
    KANA = 4
    WHITE = 5
    SPACE = 6


@cache
def character_classes() -> npt.NDArray[np.uint8]:
    """Class of each code point; uint8. The last entry stands for all that come after it.

    Source: Unicode's general categories in the version that Python knows; Radford et al. 2019 (GPT-2,
    released encoder) for what counts as letter, digit and white space.
    """
    table = np.zeros(_SIZE + 1, np.uint8)
    for code in range(_SIZE):
        kind = unicodedata.category(chr(code))[0]
        if kind in "LN":
            table[code] = CharacterClass.LETTER if kind == "L" else CharacterClass.DIGIT
    for start, stop in _KANA:
        block = table[start:stop]
        block[block == CharacterClass.LETTER] = CharacterClass.KANA  # among them are dots and accents
    for start, stop in _HAN:
        table[start:stop] = CharacterClass.HAN
    for codes in (*_WHITE, _MORE_WHITE):
        table[list(codes)] = CharacterClass.WHITE
    table[0x20] = CharacterClass.SPACE
    return table
