"""The documentation on this machine as a source: docstrings and prose of the installed packages."""

from __future__ import annotations

from collections.abc import Iterator

from ..audit import Audit
from ..document import Document, Drop
from ..local_docs import load_modules, local_documents
from ..sources import SourceFile
from .reader import ReadOptions

__all__ = ["read_local_docs"]


def read_local_docs(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read the local documentation; see `maskwright.corpus.local_docs`.

    Args:
        file: not looked at; there is nothing to name.
        options: `splits` and `cache_folder` apply.
        audit: told about modules that cannot be parsed (`unparsable_module`).

    Yields:
        One document for each module, README and reference topic. The id is `local-docs:module`.
    """
    modules = load_modules(options.cache_folder)
    for module in modules:
        if module.pieces is None:
            audit.count_unread(options.source, module.name, Drop("unparsable_module"))
    yield from local_documents(modules, options.splits, options.source)
