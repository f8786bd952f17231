"""Rule `alphabetic_words`: documents in which few words hold a letter."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["AlphabeticWords", "alphabetic_words_step"]


class AlphabeticWords(Config):
    """Limits of the rule `alphabetic_words`."""

    min_share: float = Field(
        default=0.8, ge=0, le=1, description="smallest share of words that hold at least one letter"
    )


def alphabetic_words_step(settings: AlphabeticWords) -> Step:
    """A step that drops documents in which too few words hold a letter.

    Source: Rae et al. 2021, appendix A1.1 (80 % of words with at least one alphabetic character).
    A letter is a letter of any script.

    Args:
        settings: the limit.

    Returns:
        A step. It drops with the reason `few_alphabetic_words`.
    """

    def step(document: Document, /) -> Document | Drop:
        words = measure(document.text).words
        value = share(words.num_alphabetic, len(words))
        if value < settings.min_share:
            return Drop("few_alphabetic_words", f"{value:.3f} of words, at least {settings.min_share:g}")
        return document

    return step
