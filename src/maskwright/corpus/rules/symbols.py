"""Rule `symbols`: documents full of hash signs or of ellipses."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["Symbols", "count_ellipses", "symbols_step"]


class Symbols(Config):
    """Limits of the rule `symbols`."""

    max_ratio: float = Field(
        default=0.1, ge=0, description="most hash signs, and most ellipses, for each word of a document"
    )


def symbols_step(settings: Symbols) -> Step:
    """A step that drops documents with many hash signs or many ellipses for their number of words.

    Source: Rae et al. 2021, appendix A1.1 (a ratio above 0.1 for either of the two). An ellipsis is
    the one character or three full stops.

    Args:
        settings: the limit.

    Returns:
        A step. It drops with the reasons `hash_signs` and `ellipses`.
    """

    def step(document: Document, /) -> Document | Drop:
        text = document.text
        counts = {"hash_signs": text.count("#"), "ellipses": count_ellipses(text)}
        for reason, count in counts.items():
            if not count:
                continue
            ratio = share(count, len(measure(text).words))
            if ratio > settings.max_ratio:
                return Drop(reason, f"{ratio:.3f} a word, at most {settings.max_ratio:g}")
        return document

    return step


def count_ellipses(text: str) -> int:
    """How many ellipses a text holds, as one character or as three full stops."""
    return text.count("...") + text.count("…")
