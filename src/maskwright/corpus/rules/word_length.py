"""Rule `word_length`: documents whose words are too short or too long on average to be prose."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["WordLength", "word_length_step"]


class WordLength(Config):
    """Limits of the rule `word_length`."""

    min_mean: float = Field(default=3.0, ge=0, description="shortest mean length of words, in characters")
    max_mean: float = Field(default=10.0, gt=0, description="longest mean length of words, in characters")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_mean < self.min_mean:
            raise ValueError(f"max_mean is {self.max_mean:g}, below min_mean {self.min_mean:g}")
        return self


def word_length_step(settings: WordLength) -> Step:
    """A step that keeps documents with a mean word length within limits.

    Source: Rae et al. 2021, appendix A1.1 (3 to 10 characters). Deviation: punctuation belongs to the
    word it touches, which makes English words longer by about 0.3 characters on average.

    Args:
        settings: the limits.

    Returns:
        A step. It drops with the reasons `short_words` and `long_words`.
    """

    def step(document: Document, /) -> Document | Drop:
        words = measure(document.text).words
        mean = share(int(words.lengths.sum()), len(words))
        if mean < settings.min_mean:
            return Drop("short_words", f"mean of {mean:.2f} characters, at least {settings.min_mean:g}")
        if mean > settings.max_mean:
            return Drop("long_words", f"mean of {mean:.2f} characters, at most {settings.max_mean:g}")
        return document

    return step
