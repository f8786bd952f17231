"""From raw bytes to clean, unique documents: readers, cleaning steps, local docs, and the account."""

from __future__ import annotations

from .audit import Audit
from .clean_store import CleanStore, find_clean, read_clean, write_clean
from .config import CorpusConfig, SourceConfig
from .document import Document, Drop, Step
from .pipeline import clean_documents, cleaning_steps, corpus_fingerprint, open_corpus, read_source
from .readers import READERS

__all__ = [
    "READERS",
    "Audit",
    "CleanStore",
    "CorpusConfig",
    "Document",
    "Drop",
    "SourceConfig",
    "Step",
    "clean_documents",
    "cleaning_steps",
    "corpus_fingerprint",
    "find_clean",
    "open_corpus",
    "read_clean",
    "read_source",
    "write_clean",
]
