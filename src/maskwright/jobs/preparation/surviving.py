"""The documents of a part that every stage kept, and which split each belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...core.keyed import derive_key
from ...corpus import Audit, Document
from ...corpus.parts import read_part
from ...corpus.stages import CleanPart, Verdicts

__all__ = ["is_sampled", "is_validation", "surviving_documents"]

_UNIT = 1 << 32


def surviving_documents(
    folder: Path, part: CleanPart, verdicts: Verdicts, audit: Audit | None = None
) -> Iterator[Document]:
    """The documents of one part without those that are copies, and without repeated lines.

    Args:
        folder: the output folder.
        part: which part.
        verdicts: what deduplication decided.
        audit: told about the dropped documents, if given.

    Raises:
        DataError: the part or a verdict is missing or damaged.
    """
    judge = verdicts.of_part(part.number)
    for row, document in enumerate(read_part(folder / part.path)):
        kept = judge(row, document)
        if isinstance(kept, Document):
            yield kept
        elif audit is not None:
            audit.count_drop(document, kept)


def is_validation(document: Document, seed: int, share: float) -> bool:
    """Whether a document is held out: as its source says, else by a key of its id.

    Args:
        document: the document.
        seed: of the run.
        share: of documents to hold out, 0 to 1.
    """
    split = document.meta.get("split")
    if split is not None:
        return split == "validation"
    return derive_key(seed, "validation", document.id) % _UNIT < share * _UNIT


def is_sampled(document: Document, seed: int, share: float) -> bool:
    """Whether a document is in the sample that trains the tokenizer, by a key of its id."""
    return derive_key(seed, "sample", document.id) % _UNIT < share * _UNIT
