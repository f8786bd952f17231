"""Rule `zh_stop_characters`: texts without the small words that Chinese sentences need."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step

__all__ = ["FUNCTION_CHARACTERS", "ZhStopCharacters", "zh_stop_characters_step"]

# Particles, prepositions, conjunctions, pronouns; simplified and traditional forms. A pair of forms of
# one word never stands in one text by itself, so the count of different ones is not inflated.
FUNCTION_CHARACTERS = tuple("的了是在和有不为為与與于於也而及之被这這等由他她我你就都對对從从")


class ZhStopCharacters(Config):
    """Limits of the rule `zh_stop_characters`."""

    min_distinct: int = Field(
        default=2, ge=0, description="how many different ones of the list a document must hold, a count"
    )
    characters: tuple[str, ...] = Field(
        default=FUNCTION_CHARACTERS, min_length=1, description="the list of characters or words"
    )


def zh_stop_characters_step(settings: ZhStopCharacters) -> Step:
    """A step that drops Chinese documents with too few different function characters.

    Source: the stop-word rule of Rae et al. 2021, appendix A1.1 (two different ones), with frequent
    Chinese function characters, as Penedo et al. 2025 (FineWeb2) do for each language. They are looked
    for anywhere, because words are not marked off; so a part of a longer word counts.

    Args:
        settings: the list and the limit.

    Returns:
        A step. It drops with the reason `few_stop_characters`.
    """
    characters = tuple(dict.fromkeys(settings.characters))

    def step(document: Document, /) -> Document | Drop:
        found = 0
        for character in characters:
            found += character in document.text
            if found >= settings.min_distinct:
                return document
        if found >= settings.min_distinct:
            return document
        detail = f"{found} different function characters, at least {settings.min_distinct}"
        return Drop("few_stop_characters", detail)

    return step
