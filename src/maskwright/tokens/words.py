"""The word that each token of a split belongs to, as a function of the token's position.

Masking whole words needs one number a token: where its word begins. It comes from the ids
(`word_rule.py`), or from the word borders that preparation stored, which knows words of Chinese. A
position always has the same answer, whatever batch asks, so masks stay the same for every batch split,
world size and packing. A word never leaves its document.

Nothing is remembered. Each answer looks back at most `LOOK_BACK` tokens: a longer word, such as a
ruler or a run of Base64, is cut at positions that `MAX_WORD_TOKENS` divides. Words of fewer tokens are
never cut, and no piece has twice as many. Cost: reading some hundred bytes more a window, and a few
dozen vector operations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .shards import TokenData
from .tokenizer import Tokenizer
from .word_rule import CONTEXT, word_rule

__all__ = ["LOOK_BACK", "MAX_WORD_TOKENS", "WordSource", "open_words", "words_by_file", "words_by_table"]

MAX_WORD_TOKENS = 32
LOOK_BACK = 2 * (MAX_WORD_TOKENS - 1)

_Positions = npt.NDArray[np.int64]
# Which tokens begin a word, for windows laid end to end: their first positions and their ends.
_Begins = Callable[[_Positions, _Positions], npt.NDArray[np.bool_]]


class WordSource:
    """Where the words of a split begin.

    Args:
        data: the split.
        begins: tells for windows, given by their first positions and ends, which tokens begin a word.
    """

    def __init__(self, data: TokenData, begins: _Begins) -> None:
        self._data, self._begins = data, begins

    def document_starts(self, positions: _Positions) -> _Positions:
        """The position of the first token of each token's document.

        Args:
            positions: as for `starts`.

        Returns:
            Positions; int64 of the same shape. -1 stays -1. A closing `</s>` belongs to what it closes.

        Raises:
            IndexError: a position lies outside the split.
            ShardError: a shard cannot be read.
        """
        found = np.full(positions.shape, -1, np.int64)
        wanted = positions >= 0
        found[wanted] = self._data.document_starts(positions[wanted])
        return found

    def starts(self, positions: _Positions) -> _Positions:
        """The position of the first token of each token's word.

        Args:
            positions: places of tokens in the split, -1 for what is none of it; int64, any shape.
                Windows of neighbours are cheap, single places cost a look-back each.

        Returns:
            Positions; int64 of the same shape. -1 stays -1. A closing `</s>` is a word of its own.

        Raises:
            IndexError: a position lies outside the split.
            ShardError: a shard cannot be read.
        """
        found = np.full(positions.shape, -1, np.int64)
        wanted = positions >= 0
        places = positions[wanted]
        if len(places):
            found[wanted] = self._of_places(places)
        return found

    def _of_places(self, places: _Positions) -> _Positions:
        breaks = np.flatnonzero(np.diff(places) != 1) + 1
        first = places[np.concatenate([[0], breaks])]
        ends = places[np.concatenate([breaks - 1, [len(places) - 1]])] + 1
        if ends.max() > self._data.num_tokens:
            raise IndexError(f"position {ends.max() - 1} lies outside 0 to {self._data.num_tokens}")
        before = np.maximum(first - LOOK_BACK, 0)
        begins = self._begins(before, ends)
        looked_at = _concatenate(before, ends)
        # The newest begin up to each token. One of an earlier window lies elsewhere and must not count.
        newest = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), -1))
        sizes = ends - before
        bases = np.repeat(np.cumsum(sizes) - sizes, sizes)
        starts = np.where(newest >= bases, looked_at[newest], -LOOK_BACK)
        cuts = looked_at - looked_at % MAX_WORD_TOKENS
        starts = np.where(cuts - starts < MAX_WORD_TOKENS, starts, cuts)
        return starts[looked_at >= np.repeat(first, sizes)]


def _concatenate(first: _Positions, ends: _Positions) -> _Positions:
    """The numbers of some ranges, one range after the other."""
    sizes = ends - first
    return np.repeat(first - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())


def words_by_table(data: TokenData, tokenizer: Tokenizer) -> WordSource:
    """Words as the ids tell them.

    Args:
        data: the split.
        tokenizer: what made its ids.

    Raises:
        TokenizerError: the vocabulary does not say where words begin.
    """
    rule = word_rule(tokenizer)

    def begins(first: _Positions, ends: _Positions) -> npt.NDArray[np.bool_]:
        low, high = np.maximum(first - CONTEXT, 0), np.minimum(ends + CONTEXT, data.num_tokens)
        windows = zip(low.tolist(), high.tolist(), strict=True)
        # Side by side: what a window does to its neighbour reaches no further than the context.
        ids = np.concatenate([data.tokens(start, stop - start) for start, stop in windows])
        own = np.repeat(np.stack([first, ends]), high - low, axis=1)
        places = _concatenate(low, high)
        chosen: npt.NDArray[np.bool_] = rule.begins(ids)[(places >= own[0]) & (places < own[1])]
        return chosen

    return WordSource(data, begins)


def words_by_file(data: TokenData) -> WordSource:
    """Words as preparation stored them.

    Args:
        data: the split.

    Raises:
        ShardError: it was prepared without words.
    """
    data.require_words()

    def begins(first: _Positions, ends: _Positions) -> npt.NDArray[np.bool_]:
        windows = zip(first.tolist(), ends.tolist(), strict=True)
        return np.concatenate([data.words(start, stop - start) for start, stop in windows])

    return WordSource(data, begins)


def open_words(data: TokenData, tokenizer: Tokenizer) -> WordSource:
    """The words of a split: those that preparation stored, where it did, else as the ids tell them.

    Args:
        data: the split.
        tokenizer: what made its ids.

    Raises:
        TokenizerError: none are stored, and the vocabulary does not say where words begin.
    """
    return words_by_file(data) if data.has_words else words_by_table(data, tokenizer)
