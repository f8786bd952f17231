"""Rule `duplicate_lines`: documents that repeat their own lines or paragraphs."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["DuplicateLines", "duplicate_lines_step", "repeated_parts"]


class DuplicateLines(Config):
    """Limits of the rule `duplicate_lines`."""

    max_lines: float = Field(default=0.3, ge=0, le=1, description="largest share of repeated lines")
    max_line_characters: float = Field(
        default=0.2, ge=0, le=1, description="largest share of characters that sit in repeated lines"
    )
    max_paragraphs: float = Field(default=0.3, ge=0, le=1, description="largest share of repeated paragraphs")
    max_paragraph_characters: float = Field(
        default=0.2, ge=0, le=1, description="largest share of characters that sit in repeated paragraphs"
    )


def duplicate_lines_step(settings: DuplicateLines) -> Step:
    """A step that drops documents with many repeated lines or paragraphs, by number or by characters.

    Source: Rae et al. 2021, table A1 (0.30 and 0.20). A paragraph stands between empty lines. The
    first of equal lines is no repetition. Deviations: white space around a line, empty lines and the
    line feeds themselves do not count.

    Args:
        settings: the four limits.

    Returns:
        A step. It drops with the reasons `duplicate_lines`, `duplicate_line_characters`,
        `duplicate_paragraphs` and `duplicate_paragraph_characters`.
    """
    line_limits = (settings.max_lines, settings.max_line_characters)
    paragraph_limits = (settings.max_paragraphs, settings.max_paragraph_characters)

    def step(document: Document, /) -> Document | Drop:
        measured = measure(document.text)
        return (
            _check("line", measured.lines, *line_limits)
            or _check("paragraph", measured.paragraphs, *paragraph_limits)
            or document
        )

    return step


def repeated_parts(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts were there before, and how many characters they hold.

    Args:
        parts: lines or paragraphs in order.
    """
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        else:
            seen.add(part)
    return count, characters


def _check(what: str, parts: Sequence[str], max_parts: float, max_characters: float) -> Drop | None:
    count, characters = repeated_parts(parts)
    if not count:
        return None
    value = share(count, len(parts))
    if value > max_parts:
        return Drop(f"duplicate_{what}s", f"{value:.3f} of {what}s, at most {max_parts:g}")
    value = share(characters, sum(map(len, parts)))
    if value > max_characters:
        return Drop(f"duplicate_{what}_characters", f"{value:.3f} of characters, at most {max_characters:g}")
    return None
