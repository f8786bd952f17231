"""Rewriting a text until it stays as it is, so that a cleaning step done twice is done once."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["until_stable"]

_MAX_PASSES = 10


def until_stable(rewrite: Callable[[str], str], text: str) -> str:
    """Apply a rewriting again and again until it changes nothing.

    One pass can bring out new work for the next: `&amp;lt;` becomes `&lt;`, which becomes `<`.

    Args:
        rewrite: from text to text; the same for the same text.
        text: any text.

    Returns:
        The text at rest. A text that is still changing after ten passes was made to be nasty, and is
        given back as it came; so the answer for the answer is always the answer itself.
    """
    current = text
    for _ in range(_MAX_PASSES):
        rewritten = rewrite(current)
        if rewritten == current:
            return current
        current = rewritten
    return current if rewrite(current) == current else text
