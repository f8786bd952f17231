"""Rule `word_count`: documents of very few or very many words."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure

__all__ = ["WordCount", "word_count_step"]


class WordCount(Config):
    """Limits of the rule `word_count`."""

    min_words: int = Field(default=50, ge=0, description="fewest words of a document, a count")
    max_words: int = Field(default=100_000, ge=1, description="most words of a document, a count")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_words < self.min_words:
            raise ValueError(f"max_words is {self.max_words}, below min_words {self.min_words}")
        return self


def word_count_step(settings: WordCount) -> Step:
    """A step that keeps documents with a number of words within limits.

    Source: Rae et al. 2021, appendix A1.1 (50 to 100,000 words). Deviation: the paper does not say
    what a word is; here it is what stands between white space, with the punctuation on it.

    Args:
        settings: the limits.

    Returns:
        A step. It drops with the reasons `too_few_words` and `too_many_words`.
    """

    def step(document: Document, /) -> Document | Drop:
        num_words = len(measure(document.text).words)
        if num_words < settings.min_words:
            return Drop("too_few_words", f"{num_words} words, at least {settings.min_words}")
        if num_words > settings.max_words:
            return Drop("too_many_words", f"{num_words} words, at most {settings.max_words}")
        return document

    return step
