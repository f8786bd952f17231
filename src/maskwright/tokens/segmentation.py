"""Words of Chinese: cutting runs of its characters, and marking the tokens that begin a word.

Chinese writes no spaces, so what a word is comes from a dictionary (`rjieba`, a fast form of jieba that
carries its dictionary with it), from a list of the user, or from spaces that the user's text has between
its words. Only runs of Chinese characters are cut; everything else keeps the borders that the ids tell
(`word_rule.py`). Cost: one call of the library for each run, and laying the tokens beside the text.

Source: jieba (dictionary, most probable path, hidden Markov model for unknown words); Cui et al. 2021
(arXiv 1906.08101) for cutting before masking.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.errors import DataError, MissingDependencyError
from ..core.files import read_bytes
from .alignment import code_points, token_characters
from .character_classes import CharacterClass, character_classes
from .tokenizer import Tokenizer
from .word_rule import word_rule

__all__ = ["CutText", "Cutter", "SegmenterKind", "make_cutter", "mark_words"]

SegmenterKind = Literal["jieba", "dictionary", "spaces"]
# Chinese characters and the signs that stand among them, such as full stops and brackets.
_CHINESE = "\u3001-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff65\U00020000-\U000323ff"
_BORDER = re.compile(f"(?<=[{_CHINESE}]) (?=\\S)|(?<=\\S) (?=[{_CHINESE}])")


class CutText(NamedTuple):
    """A text and where words of Chinese begin in it.

    Attributes:
        text: what is encoded.
        begins: numbers of characters, ascending; int64. Words of other scripts are not among them.
    """

    text: str
    begins: npt.NDArray[np.int64]


Cutter = Callable[[str], CutText]


def make_cutter(kind: SegmenterKind, dictionary: Path | None = None) -> Cutter:
    """How to find the words of Chinese.

    Args:
        kind: `jieba` knows words and finds new ones; `dictionary` knows those of the list alone, and
            every other character is a word; `spaces` takes the single spaces around Chinese characters
            for borders, and out of the text.
        dictionary: a list of words, one a line, each perhaps with its frequency; UTF-8. With `jieba`
            they are added to those that it knows.

    Raises:
        DataError: the list cannot be read.
        MissingDependencyError: the library is not installed.
    """
    if kind == "spaces":
        return _at_spaces
    content = None if dictionary is None else read_bytes(dictionary)
    cut = _library(kind, str(dictionary), content)

    def cutter(text: str) -> CutText:
        return CutText(text, _begins(text, lambda run: cut(run, kind == "jieba")))

    return cutter


@lru_cache(maxsize=2)
def _library(kind: SegmenterKind, place: str, content: bytes | None) -> Callable[[str, bool], Sequence[str]]:
    """The library's own function; kept by what the list holds, for the next task of the process."""
    try:
        import rjieba
    except ImportError as error:
        raise MissingDependencyError("rjieba", "corpus", "cut Chinese into words") from error
    library: Any = rjieba.Jieba
    segmenter = library() if kind == "jieba" else library.empty()
    if content is not None:
        for word, frequency in _read_list(place, content):
            # Without a frequency jieba takes one that lets the word win; a bare list counts words.
            segmenter.add_word(word, frequency or (None if kind == "jieba" else 1), None)
    cut: Callable[[str, bool], Sequence[str]] = segmenter.cut
    return cut


def _read_list(place: str, content: bytes) -> list[tuple[str, int]]:
    """Words with their frequencies, 0 where none is given."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: is not UTF-8 ({error}); convert the list of words") from error
    found = []
    for number, line in enumerate(lines, start=1):
        word, *rest = line.split()[:2] or [""]
        if rest and not rest[0].isdecimal():
            raise DataError(
                f"{place}:{number}: {rest[0][:60]!r} is no frequency, expected a word and perhaps a whole "
                "number behind it; mend the line"
            )
        if word:
            found.append((word, int(rest[0]) if rest else 0))
    if not found:
        raise DataError(f"{place}: holds no words; give a list with one word a line")
    return found


def _begins(text: str, cut: Callable[[str], Sequence[str]]) -> npt.NDArray[np.int64]:
    """Where words begin in the runs of Chinese characters."""
    if text.isascii():
        return np.empty(0, np.int64)
    is_chinese = np.concatenate([[False], _is_chinese(text), [False]])
    borders = np.flatnonzero(is_chinese[1:] != is_chinese[:-1])
    found: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    for start, stop in borders.reshape(-1, 2).tolist():
        words = cut(text[start:stop])
        assert sum(map(len, words)) == stop - start
        found.append(start + np.cumsum([0, *map(len, words[:-1])], dtype=np.int64))
    return np.concatenate(found)


def _is_chinese(text: str) -> npt.NDArray[np.bool_]:
    classes = character_classes()
    kinds = classes[np.minimum(code_points(text), len(classes) - 1)]
    return np.asarray(kinds == CharacterClass.HAN)


def _at_spaces(text: str) -> CutText:
    """Take out the spaces between words, and say where they were."""
    if text.isascii():
        return CutText(text, np.empty(0, np.int64))
    places = np.array([match.start() for match in _BORDER.finditer(text)], np.int64)
    joined = _BORDER.sub("", text)
    is_chinese = _is_chinese(joined)
    begins = is_chinese & ~np.concatenate([[False], is_chinese[:-1]])
    begins[places - np.arange(len(places))] = True
    return CutText(joined, np.flatnonzero(begins & is_chinese))


def mark_words(
    tokenizer: Tokenizer, ids: npt.NDArray[Any], counts: npt.NDArray[np.int64], texts: Sequence[CutText]
) -> npt.NDArray[np.bool_]:
    """Which tokens begin a word, for texts that were encoded whole.

    A token over a border belongs to the word in which it begins.

    Args:
        tokenizer: what made the ids.
        ids: tokens of all texts laid end to end, without special ones; integers of shape (N,).
        counts: tokens of each text; int64.
        texts: the texts with their words.

    Returns:
        Booleans of shape (N,).

    Raises:
        DataError: the ids are not those of the texts.
        TokenizerError: the vocabulary does not say where words begin.
    """
    stops = np.cumsum(counts)
    closed = np.insert(ids.astype(np.int64), stops, tokenizer.eos_id)
    begins = np.delete(word_rule(tokenizer).begins(closed), stops + np.arange(len(stops)))
    for text, stop, count in zip(texts, stops.tolist(), counts.tolist(), strict=True):
        if len(text.begins) and count:
            start = stop - count
            characters = token_characters(tokenizer, ids[start:stop], text.text)
            begins[start:stop] &= ~_goes_on(text, characters)
    return begins


def _goes_on(text: CutText, characters: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which tokens lie in the Chinese word of the token before."""
    is_chinese = _is_chinese(text.text)
    begins = ~is_chinese  # every other character counts as a word, so none of them goes on
    begins[text.begins] = True
    word = np.cumsum(begins)[characters]
    goes_on = is_chinese[characters]
    goes_on[1:] &= word[1:] == word[:-1]
    goes_on[:1] = False
    return goes_on
