"""Make documents of what was collected: one for each module, each docstring once.

A module belongs to one split, by a keyed hash of its name: about 80 % train, 8 % validation and
12 % test. A docstring that occurs in several modules is kept in one: test modules come before
validation, and those before train, so no text of the test split is in a document of another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...core.keyed import derive_key
from ..dedup.exact import text_digest
from ..document import Document
from .docstrings import Piece
from .scan import DocModule

__all__ = ["SPLITS", "local_documents", "split_of"]

SPLITS = ("train", "validation", "test")

_TEST_PERCENT = 12
_VALIDATION_PERCENT = 8


def split_of(module: str) -> str:
    """The split that a module belongs to: `train`, `validation` or `test`."""
    percent = derive_key("local docs split", module) % 100
    if percent < _TEST_PERCENT:
        return "test"
    return "validation" if percent < _TEST_PERCENT + _VALIDATION_PERCENT else "train"


def local_documents(
    modules: Sequence[DocModule], splits: Sequence[str], source: str = "local-docs"
) -> Iterator[Document]:
    """Turn the documentation of an environment into documents.

    Args:
        modules: from `load_modules`.
        splits: which splits to take.
        source: the documents' source, and first part of their ids.

    Yields:
        Documents in the order of `modules`: the docstrings of a module in source order, with blank
        lines between. `meta` has `package`, `module` and `split`.
    """
    kept = _first_occurrences(modules)
    for number, module in enumerate(modules):
        split = split_of(module.name)
        if split not in splits or not kept[number]:
            continue
        yield Document(
            text="\n\n".join(text for _, text in kept[number]),
            id=f"{source}:{module.name}",
            source=source,
            meta={"package": module.package, "module": module.name, "split": split},
        )


def _first_occurrences(modules: Sequence[DocModule]) -> list[list[Piece]]:
    """For each module, the pieces whose text did not occur before, test modules being first."""
    seen: set[bytes] = set()
    kept: list[list[Piece]] = [[] for _ in modules]
    order = sorted(range(len(modules)), key=lambda number: -SPLITS.index(split_of(modules[number].name)))
    for number in order:
        for name, text in modules[number].pieces or ():
            digest = text_digest(text)
            if digest not in seen:
                seen.add(digest)
                kept[number].append((name, text))
    return kept
