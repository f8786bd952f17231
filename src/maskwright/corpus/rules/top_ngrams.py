"""Rule `top_ngrams`: documents in which one phrase of two to four words takes much of the text."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure
from .ngrams import exceeded_top

__all__ = ["TopNgrams", "top_ngrams_step"]

_MEANING = "largest share of characters in the most frequent run of {} words"


class TopNgrams(Config):
    """Limits of the rule `top_ngrams`."""

    max_share_2: float = Field(default=0.20, ge=0, le=1, description=_MEANING.format(2))
    max_share_3: float = Field(default=0.18, ge=0, le=1, description=_MEANING.format(3))
    max_share_4: float = Field(default=0.16, ge=0, le=1, description=_MEANING.format(4))


def top_ngrams_step(settings: TopNgrams) -> Step:
    """A step that drops documents in which the most frequent 2-, 3- or 4-gram holds many characters.

    Source: Rae et al. 2021, table A1. Deviations: characters are those of words, without white space;
    overlapping occurrences count once, so a share is never above 1; an n-gram that occurs once has no
    share, as one word pair in a very short text is no repetition.

    Args:
        settings: the limit for each size.

    Returns:
        A step. It drops with the reasons `top_2gram`, `top_3gram` and `top_4gram`.
    """
    limits = {2: settings.max_share_2, 3: settings.max_share_3, 4: settings.max_share_4}

    def step(document: Document, /) -> Document | Drop:
        exceeded = exceeded_top(measure(document.text), "words", limits)
        if exceeded is None:
            return document
        size, value = exceeded
        return Drop(f"top_{size}gram", f"{value:.3f} of characters, at most {limits[size]:g}")

    return step
