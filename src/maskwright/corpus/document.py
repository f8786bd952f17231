"""The two things a cleaning step can answer with: a document, or a reason to drop it.

Everything between a reader and a token shard speaks these types. A document is a small frozen
object, so steps may share it freely; a changed document is a new one (`dataclasses.replace`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Document", "Drop", "Step", "utf8_length"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its name and where it came from.

    Args:
        text: the words themselves. Nothing in it has a special meaning, `<mask>` and `</s>` included.
        id: a name that is unique in the corpus and the same on every machine.
        source: name of the source it was read from.
        meta: further facts, such as the package and module of a docstring.
    """

    text: str
    id: str
    source: str
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drop:
    """The answer of a step that refuses a document.

    Args:
        reason: short name, under which the audit counts it, such as `too_short`.
        detail: what was seen in this very document.
    """

    reason: str
    detail: str = ""


class Step(Protocol):
    """One cleaning rule.

    A Protocol, because rules are plain functions where they need no memory and small objects where
    they do (deduplication), and the pipeline must not care.
    """

    def __call__(self, document: Document, /) -> Document | Drop:
        """Return the document, a changed copy, or the reason to drop it."""
        ...


def utf8_length(text: str) -> int:
    """Length of a text in bytes of UTF-8; half surrogates count three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
