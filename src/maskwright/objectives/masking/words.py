"""Whole words: a word is masked with all its tokens or not at all. The cost is finding the words.

The draw of a word is that of its first token, so a window that cuts a word masks its part of it by
the same decision. Between `<mask>`, a random token and itself each token of a word decides alone.
A word counts by its tokens, so the expected share of masked tokens is the rate.

Source: the whole word masking of BERT's authors (github.com/google-research/bert, 2019), and for
Chinese "Pre-Training with Whole Word Masking for Chinese BERT" (arXiv 1906.08101, section 3). They
shuffle the words of a sequence until its budget is used up; here each word decides alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from .tokens import Tokens
from .unit import ArrayT, Draw, WordBorders, from_host, host_word_starts

__all__ = ["WholeWords"]


@dataclass(frozen=True)
class WholeWords:
    """Chooses words independently of each other.

    Attributes:
        seed: the run's seed.
        borders: where words begin.
    """

    seed: int
    borders: WordBorders

    def draw(self, positions: ArrayT, epoch: int, rate: float) -> Draw:
        """Choose each word with probability `rate`, and with it all its positions."""
        words = from_host(host_word_starts(self.borders, positions), positions)
        return Draw(Tokens(self.seed).draw(words, epoch, rate).chosen, positions, words)

    def clustering(self, rate: float) -> float:
        """1: words do not know of each other."""
        return 1.0
