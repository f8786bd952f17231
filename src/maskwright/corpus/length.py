"""Drop documents that are too short to teach anything, or too long to be one document."""

from __future__ import annotations

from collections.abc import Callable

from .document import Document, Drop

__all__ = ["length_step"]


def length_step(min_characters: int, max_characters: int | None) -> Callable[[Document], Document | Drop]:
    """A step that keeps documents within a range of lengths.

    Args:
        min_characters: shortest length to keep, in characters (Unicode code points).
        max_characters: longest length to keep; None sets no limit.

    Returns:
        A step. It drops with the reasons `too_short` and `too_long`.
    """

    def step(document: Document) -> Document | Drop:
        length = len(document.text)
        if length < min_characters:
            return Drop("too_short", f"{length} characters")
        if max_characters is not None and length > max_characters:
            return Drop("too_long", f"{length} characters")
        return document

    return step
