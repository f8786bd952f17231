"""Where sentences end, in characters of a text and in tokens of it.

The splitting is done by `sentencex`, which ships its rules for some three hundred languages, Chinese
punctuation among them. It is given about a thousand characters at a time, because its cost grows
with the square of a paragraph without line breaks: 90,000 characters of Chinese took eight seconds
at once. Cost: 20 to 50 MB/s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import MissingDependencyError
from .alignment import token_characters
from .tokenizer import Tokenizer

__all__ = ["Span", "sentence_ends", "split_sentences"]

Span = tuple[int, int]

_WINDOW = 1024
# What is looked at again where a window shows no end: more than an abbreviation or a closing quote.
_OVERLAP = 64


def split_sentences(text: str, language: str | None = None) -> list[Span]:
    """Cut a text into sentences.

    White space belongs to the sentence after it, as it does in tokens that begin with a space; an
    empty line always ends a sentence, a single line break does not.

    Args:
        text: any text.
        language: ISO 639 code, perhaps with a region; None and unknown codes get the rules of English,
            which know the marks of all scripts.

    Returns:
        `(start, end)` in characters, laid end to end and covering all of the text; empty for a text
        without any character.

    Raises:
        MissingDependencyError: the splitter is not installed.
    """
    code = (language or "en").replace("_", "-").partition("-")[0].lower() or "en"
    ends = [*_ends(text, code), len(text)] if text else []
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []


def _ends(text: str, code: str) -> Iterator[int]:
    """Where sentences end inside a text, before the last one."""
    try:
        import sentencex
    except ImportError as error:
        raise MissingDependencyError("sentencex", "corpus", "split text into sentences") from error

    last, start = 0, 0  # end of the newest sentence; start of the window
    final = len(text.rstrip())
    while start < final:
        stop = min(start + _WINDOW, final)
        pieces = sentencex.get_sentence_boundaries(code, text[start:stop])
        before = last
        # The last piece may go on behind the window, or is the end of the text.
        for piece in pieces[:-1]:
            end = start + piece["start_index"] + len(piece["text"].rstrip())
            if end > last and text[last:end].strip():
                yield end
                last = end
        if stop == final:
            return
        start = last if last > before else max(stop - _OVERLAP, last)


def sentence_ends(
    tokenizer: Tokenizer, ids: npt.NDArray[Any], text: str, spans: Sequence[Span]
) -> npt.NDArray[np.int64]:
    """Where sentences end among the tokens of a text that was encoded whole.

    A token over a border belongs to the sentence in which it begins.

    Args:
        tokenizer: what made the ids.
        ids: tokens of the text without special ones; integers of shape (N,).
        text: the text.
        spans: sentences of it, in characters, as `split_sentences` gives them.

    Returns:
        Ends, counted in tokens; int64, strictly ascending, the last one N. A sentence in which no
        token begins has none.

    Raises:
        DataError: the ids are not those of the text.
    """
    if not len(ids) or not spans:
        return np.array([len(ids)] if len(ids) else [], np.int64)
    borders = np.array([end for _, end in spans], np.int64)
    starts = token_characters(tokenizer, ids, text)
    ends = np.searchsorted(starts, borders, side="left")
    ends[-1] = len(ids)
    return np.unique(ends[ends > 0]).astype(np.int64)
