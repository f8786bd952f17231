"""From raw bytes to clean, unique documents: readers, cleaning steps, deduplication, and the account."""

from __future__ import annotations

from .audit import Audit
from .config import CorpusConfig, SourceConfig
from .document import Document, Drop, Step
from .pipeline import (
    clean_documents,
    cleaning_steps,
    input_files,
    read_input,
    require_documents,
    require_few_bad_lines,
    warn_of_ignored,
)
from .readers import READERS

__all__ = [
    "READERS",
    "Audit",
    "CorpusConfig",
    "Document",
    "Drop",
    "SourceConfig",
    "Step",
    "clean_documents",
    "cleaning_steps",
    "input_files",
    "read_input",
    "require_documents",
    "require_few_bad_lines",
    "warn_of_ignored",
]
