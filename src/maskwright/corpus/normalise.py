"""Bring texts into one form: one Unicode form, one newline, nothing invisible, no trailing space.

What is done, in this order:

- half surrogate pairs become U+FFFD, because no UTF-8 file can hold them;
- CRLF, CR, form feed, vertical tab, NEL and the Unicode line and paragraph separators become LF;
- control characters go, except LF and tab; so do soft hyphens, zero-width spaces, byte-order marks,
  direction marks, tag characters and noncharacters;
- the Unicode normal form is taken;
- the zero-width joiner and non-joiner stay between two characters outside ASCII, where they shape
  Persian, Indic scripts and emoji, and go everywhere else; a run of them counts as one;
- white space at line ends, and empty lines at the start and the end, go.

Normalising twice gives the same as normalising once. Lines are treated one by one, so that the
plain ones, nearly all, cost no more than two looks and a copy.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from .document import Document, Drop

__all__ = ["UnicodeForm", "normalise_step", "normalise_text"]

UnicodeForm = Literal["NFC", "NFKC"]

_INVISIBLE_CHARACTERS = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff\U000e0001\U000e0020-\U000e007f"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NEWLINE = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(f"[{_INVISIBLE_CHARACTERS}]+")
_ODD = re.compile(f"[\r\x0b\x0c\x85\u2028\u2029\ud800-\udfff{_INVISIBLE_CHARACTERS}]")
_JOINERS = re.compile("[\u200c\u200d]+")


def normalise_text(text: str, form: UnicodeForm = "NFC") -> str:
    """Bring one text into the normal form that the module describes.

    Args:
        text: any string.
        form: `NFC` keeps what can be told apart; `NFKC` also folds full-width letters, ligatures
            and the like. Source: Unicode Standard Annex 15.

    Returns:
        The text, perhaps empty.
    """
    lines = [
        line.rstrip() if line.isascii() and line.isprintable() else _normalise_line(line, form)
        for line in text.split("\n")
    ]
    # Taken off before joining, because a copy of a very long text is dear.
    first, last = 0, len(lines)
    while first < last and not lines[first].strip("\n"):
        first += 1
    while last > first and not lines[last - 1].strip("\n"):
        last -= 1
    if first < last:
        lines[first] = lines[first].lstrip("\n")
        lines[last - 1] = lines[last - 1].rstrip("\n")
    return "\n".join(lines[first:last] if last - first < len(lines) else lines)


def normalise_step(form: UnicodeForm = "NFC") -> Callable[[Document], Document | Drop]:
    """A step that normalises a document's text and drops what has no text left.

    Args:
        form: as for `normalise_text`.

    Returns:
        A step. It drops with the reason `empty`.
    """

    def step(document: Document) -> Document | Drop:
        text = normalise_text(document.text, form)
        if not text:
            return Drop("empty")
        return document if text == document.text else replace(document, text=text)

    return step


def _normalise_line(line: str, form: UnicodeForm) -> str:
    # Everything that has to be removed or replaced counts as not printable.
    if not line.isprintable() and _ODD.search(line):
        line = _SURROGATE.sub("\ufffd", _NEWLINE.sub("\n", line.removesuffix("\r")))
        line = _INVISIBLE.sub("", line)
    if not line.isascii():
        line = _normal_form(line, form)
        if "\u200c" in line or "\u200d" in line:
            line = _normal_form(_JOINERS.sub(_keep_joiner, line), form)
    if "\n" not in line:
        return line.rstrip()
    return "\n".join([part.rstrip() for part in line.split("\n")])


def _normal_form(text: str, form: UnicodeForm) -> str:
    return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)


def _keep_joiner(match: re.Match[str]) -> str:
    text, start, end = match.string, match.start(), match.end()
    before, after = text[start - 1 : start], text[end : end + 1]
    shapes = _is_shaped(before) and _is_shaped(after)
    return match.group()[0] if shapes else ""


def _is_shaped(character: str) -> bool:
    return bool(character) and not character.isascii() and not character.isspace()
