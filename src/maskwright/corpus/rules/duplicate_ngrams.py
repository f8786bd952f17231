"""Rule `duplicate_ngrams`: documents that repeat runs of five to ten words."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure
from .ngrams import exceeded_duplicates

__all__ = ["DuplicateNgrams", "duplicate_ngrams_step"]

_MEANING = "largest share of characters in repeated runs of {} words"


class DuplicateNgrams(Config):
    """Limits of the rule `duplicate_ngrams`."""

    max_share_5: float = Field(default=0.15, ge=0, le=1, description=_MEANING.format(5))
    max_share_6: float = Field(default=0.14, ge=0, le=1, description=_MEANING.format(6))
    max_share_7: float = Field(default=0.13, ge=0, le=1, description=_MEANING.format(7))
    max_share_8: float = Field(default=0.12, ge=0, le=1, description=_MEANING.format(8))
    max_share_9: float = Field(default=0.11, ge=0, le=1, description=_MEANING.format(9))
    max_share_10: float = Field(default=0.10, ge=0, le=1, description=_MEANING.format(10))


def duplicate_ngrams_step(settings: DuplicateNgrams) -> Step:
    """A step that drops documents in which repeated 5- to 10-grams hold many characters.

    Source: Rae et al. 2021, table A1; characters in overlapping n-grams count once, as there.
    Deviations: the first occurrence is no repetition, as in the pipeline of FineWeb (the paper leaves
    it open; counting it would about double the shares); characters are those of words, without white
    space.

    Args:
        settings: the limit for each size.

    Returns:
        A step. It drops with the reasons `duplicate_5gram` to `duplicate_10gram`.
    """
    limits = {size: getattr(settings, f"max_share_{size}") for size in range(5, 11)}

    def step(document: Document, /) -> Document | Drop:
        exceeded = exceeded_duplicates(measure(document.text), "words", limits)
        if exceeded is None:
            return document
        size, value = exceeded
        return Drop(f"duplicate_{size}gram", f"{value:.3f} of characters, at most {limits[size]:g}")

    return step
