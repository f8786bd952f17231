"""Rule `digits`: documents that are mostly numbers."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["Digits", "digits_step"]


class Digits(Config):
    """Limits of the rule `digits`."""

    max_share: float = Field(
        default=0.25, ge=0, le=1, description="largest share of digits among characters, white space left out"
    )


def digits_step(settings: Digits) -> Step:
    """A step that drops documents with a large share of digits.

    Source: our own limit, in the spirit of the line rules of Penedo et al. 2023 (RefinedWeb), who
    remove lines that are mainly numbers. A quarter is far above prose (an encyclopedia has one or two
    digits in a hundred characters, in Chinese six) and below price lists and result tables.

    Args:
        settings: the limit.

    Returns:
        A step. It drops with the reason `digits`.
    """

    def step(document: Document, /) -> Document | Drop:
        counts = measure(document.text).counts
        value = share(counts.digits, counts.visible)
        if value > settings.max_share:
            return Drop("digits", f"{value:.3f} of characters, at most {settings.max_share:g}")
        return document

    return step
