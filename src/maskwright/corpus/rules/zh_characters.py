"""Rule `zh_characters`: documents that are too short, too long, or hardly Chinese."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["ZhCharacters", "zh_characters_step"]


class ZhCharacters(Config):
    """Limits of the rule `zh_characters`."""

    min_characters: int = Field(
        default=100, ge=0, description="fewest characters of a document, white space left out, a count"
    )
    max_characters: int = Field(
        default=200_000, ge=1, description="most characters of a document, white space left out, a count"
    )
    min_han_share: float = Field(
        default=0.4, ge=0, le=1, description="smallest share of Chinese characters, white space left out"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_characters < self.min_characters:
            raise ValueError(
                f"max_characters is {self.max_characters}, below min_characters {self.min_characters}"
            )
        return self


def zh_characters_step(settings: ZhCharacters) -> Step:
    """A step that keeps Chinese documents with a number of characters within limits.

    Source: the word counts of Rae et al. 2021, appendix A1.1 (50 to 100,000), carried over: a word
    counts as two characters, which most words of modern Chinese have. The share of Chinese characters
    takes the place of the share of alphabetic words and of the mean word length: encyclopedia articles
    in Chinese have 0.79 in the middle and 0.41 at the lowest hundredth, where lists of foreign names,
    tables and formulas begin.

    Args:
        settings: the limits.

    Returns:
        A step. It drops with the reasons `too_few_characters`, `too_many_characters` and
        `few_han_characters`.
    """

    def step(document: Document, /) -> Document | Drop:
        counts = measure(document.text).counts
        if counts.visible < settings.min_characters:
            detail = f"{counts.visible} characters, at least {settings.min_characters}"
            return Drop("too_few_characters", detail)
        if counts.visible > settings.max_characters:
            detail = f"{counts.visible} characters, at most {settings.max_characters}"
            return Drop("too_many_characters", detail)
        value = share(counts.han, counts.visible)
        if value < settings.min_han_share:
            detail = f"{value:.3f} of characters, at least {settings.min_han_share:g}"
            return Drop("few_han_characters", detail)
        return document

    return step
