"""Rule `c4_lines`: remove lines that are no sentences, and pages that are code or filler."""

from __future__ import annotations

import re
from dataclasses import replace

from pydantic import Field

from ...core.config import Config
from ..document import Document, Drop, Step
from .stable import until_stable

__all__ = ["C4Lines", "c4_lines_step", "num_sentences"]

_ENDINGS = (".", "!", "?", '"', "”")
_ELLIPSES = ("...", "…")
_CITATION = re.compile(r"\[(?:[0-9]{1,3}|edit|citation needed)\]")
_NOTICES = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
# A sentence ends with its mark, perhaps inside quotes or brackets, before white space.
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s)")


class C4Lines(Config):
    """Settings of the rule `c4_lines`."""

    terminal_punctuation: bool = Field(
        default=False,
        description="whether to remove lines that do not end with a sentence mark; C4 does, FineWeb does not "
        "(it costs 30 % of the tokens of the web)",
    )
    min_line_words: int = Field(default=5, ge=0, description="fewest words of a line to keep, a count")
    min_sentences: int = Field(
        default=3, ge=0, description="fewest sentences of a document after removing lines, a count"
    )
    remove_citations: bool = Field(
        default=True, description="whether to remove marks such as [1], [edit] and [citation needed]"
    )
    remove_notices: bool = Field(
        default=True,
        description="whether to remove lines that speak of javascript, cookies, a privacy policy or terms of "
        "use",
    )
    drop_curly_brackets: bool = Field(
        default=True, description="whether to drop documents that hold an opening curly bracket"
    )


def c4_lines_step(settings: C4Lines) -> Step:
    """A step that removes lines that are no sentences, and drops what has too few left.

    Source: Raffel et al. 2020, section 2.2 (lines of 5 words, 3 sentences, as in the published
    version; an earlier preprint had 3 words and 5 sentences). A document with the words "lorem ipsum"
    or a curly bracket is dropped. Deviations: lines without a sentence mark stay unless
    `terminal_punctuation` asks, as in FineWeb (Penedo et al. 2024, section 3.5); typographic quotes
    count as quotes and a line that ends with an ellipsis has no end, as in the code of C4; sentences
    are counted by their marks, at least one a line, without a trained splitter, so abbreviations
    count as ends; the list of bad words and the removal of repeated spans are left out.

    Args:
        settings: which lines and documents go.

    Returns:
        A step. It changes the text, and drops with the reasons `lorem_ipsum`, `curly_bracket` and
        `few_sentences`.
    """

    def step(document: Document, /) -> Document | Drop:
        text = document.text
        if settings.drop_curly_brackets and "{" in text:
            return Drop("curly_bracket", f"at character {text.index('{')}")
        # A quick look at the whole text spares a look at each of its lines.
        lowered = text.encode("ascii", "ignore").lower()
        if b"lorem ipsum" in lowered and (found := text.lower().find("lorem ipsum")) >= 0:
            return Drop("lorem_ipsum", f"at character {found}")
        notices = tuple(word for word in _NOTICES if settings.remove_notices and word.encode() in lowered)
        lines = text.split("\n")
        kept = [line for line in (_cleaned(line, settings, notices) for line in lines) if line]
        total = 0
        for line in kept:
            total += num_sentences(line)
            if total >= settings.min_sentences:
                break
        else:
            return Drop(
                "few_sentences",
                f"{total} sentences in {len(kept)} of {len(lines)} lines, at least {settings.min_sentences}",
            )
        cleaned = "\n".join(kept)
        return document if cleaned == text else replace(document, text=cleaned)

    return step


def num_sentences(line: str) -> int:
    """Sentences of a line: its sentence marks before white space, and what follows the last one."""
    return 1 + sum(1 for match in _SENTENCE_END.finditer(line))


def _cleaned(line: str, settings: C4Lines, notices: tuple[str, ...]) -> str:
    """The line without citation marks, or nothing if it has to go."""
    line = line.strip()
    if settings.remove_citations and "]" in line:
        line = until_stable(_without_citations, line)
    if settings.terminal_punctuation and (not line.endswith(_ENDINGS) or line.endswith(_ELLIPSES)):
        return ""
    if len(line.split(None, settings.min_line_words)) < settings.min_line_words:
        return ""
    if notices:
        lowered = line.lower()
        if any(notice in lowered for notice in notices):
            return ""
    return line


def _without_citations(line: str) -> str:
    return _CITATION.sub("", line).strip()
