"""Rule `stop_words`: texts without the small words that every English sentence needs."""

from __future__ import annotations

import re

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step

__all__ = ["GOPHER_STOP_WORDS", "StopWords", "stop_words_step"]

GOPHER_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


class StopWords(Config):
    """Limits of the rule `stop_words`."""

    min_distinct: int = Field(
        default=2, ge=0, description="how many different words of the list a document must hold, a count"
    )
    words: tuple[str, ...] = Field(
        default=GOPHER_STOP_WORDS, min_length=1, description="the list of words; case does not matter"
    )


def stop_words_step(settings: StopWords) -> Step:
    """A step that drops documents with too few different stop words.

    Source: Rae et al. 2021, appendix A1.1 (at least two of eight English words). A stop word stands
    by itself, between characters that are neither letters nor digits. Deviation: upper case counts
    too, so that a text in capitals is not lost.

    Args:
        settings: the list and the limit.

    Returns:
        A step. It drops with the reason `few_stop_words`.
    """
    choice = "|".join(sorted({re.escape(word) for word in settings.words}))
    pattern = re.compile(rf"(?<!\w)(?:{choice})(?!\w)", re.IGNORECASE)

    def step(document: Document, /) -> Document | Drop:
        if not settings.min_distinct:
            return document
        found: set[str] = set()
        for match in pattern.finditer(document.text):
            found.add(match.group().casefold())
            if len(found) >= settings.min_distinct:
                return document
        return Drop("few_stop_words", f"{len(found)} different stop words, at least {settings.min_distinct}")

    return step
