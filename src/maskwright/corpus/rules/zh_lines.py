"""Rule `zh_lines`: Chinese documents whose lines look like lists and menus rather than prose."""

from __future__ import annotations

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .measured import measure, share

__all__ = ["ZH_SENTENCE_ENDINGS", "ZhLines", "zh_lines_step"]

# The marks that end a Chinese sentence, the quotes that may follow them, and the ASCII ones.
ZH_SENTENCE_ENDINGS = tuple("。！？；…｡．」』”’.!?\"'")


class ZhLines(Config):
    """Limits of the rule `zh_lines`."""

    min_punctuated: float = Field(
        default=0.106, ge=0, le=1, description="smallest share of lines that end with a sentence mark"
    )
    max_short: float = Field(default=0.67, ge=0, le=1, description="largest share of short lines")
    short_characters: int = Field(
        default=10, ge=0, description="a line with fewer characters than this is short, a count"
    )


def zh_lines_step(settings: ZhLines) -> Step:
    """A step that drops Chinese documents with few punctuated or mostly short lines.

    Source: the line rules of Penedo et al. 2024, section 3.6, with the limit on punctuation that
    Penedo et al. 2025 (FineWeb2) use for Chinese. Short: 30 English characters are about five words,
    and five Chinese words about ten characters. Empty lines do not count.

    Args:
        settings: the limits.

    Returns:
        A step. It drops with the reasons `few_punctuated_lines` and `short_lines`.
    """

    def step(document: Document, /) -> Document | Drop:
        lines = measure(document.text).lines
        if not lines:
            return document
        value = share(sum(line.endswith(ZH_SENTENCE_ENDINGS) for line in lines), len(lines))
        if value < settings.min_punctuated:
            detail = f"{value:.3f} of lines, at least {settings.min_punctuated:g}"
            return Drop("few_punctuated_lines", detail)
        value = share(sum(len(line) < settings.short_characters for line in lines), len(lines))
        if value > settings.max_short:
            return Drop("short_lines", f"{value:.3f} of lines, at most {settings.max_short:g}")
        return document

    return step
