"""Rule `zh_ngrams`: Chinese documents that repeat runs of characters."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure
from .ngrams import exceeded_duplicates, exceeded_top

__all__ = ["ZhNgrams", "zh_ngrams_step"]

_TOP = "largest share of characters in the most frequent run of {} characters"
_REPEATED = "largest share of characters in repeated runs of {} characters"


class ZhNgrams(Config):
    """Limits of the rule `zh_ngrams`."""

    max_top_4: float = Field(default=0.256, ge=0, le=1, description=_TOP.format(4))
    max_top_6: float = Field(default=0.201, ge=0, le=1, description=_TOP.format(6))
    max_top_8: float = Field(default=0.171, ge=0, le=1, description=_TOP.format(8))
    max_share_10: float = Field(default=0.198, ge=0, le=1, description=_REPEATED.format(10))
    max_share_12: float = Field(default=0.182, ge=0, le=1, description=_REPEATED.format(12))
    max_share_14: float = Field(default=0.167, ge=0, le=1, description=_REPEATED.format(14))
    max_share_16: float = Field(default=0.154, ge=0, le=1, description=_REPEATED.format(16))
    max_share_18: float = Field(default=0.140, ge=0, le=1, description=_REPEATED.format(18))
    max_share_20: float = Field(default=0.127, ge=0, le=1, description=_REPEATED.format(20))


def zh_ngrams_step(settings: ZhNgrams) -> Step:
    """A step that drops Chinese documents in which repeated runs of characters hold much of the text.

    Source: the repetition rules of Rae et al. 2021, table A1, with the limits that Penedo et al. 2025
    (FineWeb2, settings for Chinese) use for 2 to 4 and 5 to 10 words. Deviation: no word splitter;
    a word counts as two characters, which most words of modern Chinese have. That makes the sizes 4 to 8
    and 10 to 20; shorter runs would count every repeated name of a school or a station. White space is
    left out, punctuation is not. What is counted is as in `top_ngrams` and `duplicate_ngrams`.

    Args:
        settings: the limit for each size.

    Returns:
        A step. It drops with the reasons `top_4gram`, `top_6gram`, `top_8gram` and `duplicate_10gram` to
        `duplicate_20gram`.
    """
    top = {size: getattr(settings, f"max_top_{size}") for size in (4, 6, 8)}
    repeated = {size: getattr(settings, f"max_share_{size}") for size in (10, 12, 14, 16, 18, 20)}
    rules = (("top", exceeded_top, top), ("duplicate", exceeded_duplicates, repeated))

    def step(document: Document, /) -> Document | Drop:
        measured = measure(document.text)
        for kind, exceeded_by, limits in rules:
            exceeded = exceeded_by(measured, "characters", limits)
            if exceeded is not None:
                size, value = exceeded
                return Drop(f"{kind}_{size}gram", f"{value:.3f} of characters, at most {limits[size]:g}")
        return document

    return step
