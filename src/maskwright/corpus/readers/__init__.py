"""One reader for each input format, all with one signature (`reader.Reader`), found by name or suffix."""

from __future__ import annotations

from pathlib import Path

from ..streams import file_suffix
from .csv_tsv import read_csv, read_tsv
from .jsonl import read_jsonl
from .local_docs import read_local_docs
from .plain_text import read_plain_text
from .reader import Reader, ReadOptions

__all__ = [
    "ALL_SETTINGS",
    "HEEDED_SETTINGS",
    "READERS",
    "SUFFIXES",
    "ReadOptions",
    "Reader",
    "guess_format",
]

READERS: dict[str, Reader] = {
    "text": read_plain_text,
    "markdown": read_plain_text,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "tsv": read_tsv,
    "local-docs": read_local_docs,
}

_TEXT_SETTINGS = frozenset({"encoding_errors", "split_documents"})
_ROW_SETTINGS = frozenset({"text_field", "id_field", "encoding_errors", "max_bad_lines"})

HEEDED_SETTINGS: dict[str, frozenset[str]] = {
    "text": _TEXT_SETTINGS,
    "markdown": _TEXT_SETTINGS,
    "jsonl": _ROW_SETTINGS,
    "csv": _ROW_SETTINGS | {"header"},
    "tsv": _ROW_SETTINGS | {"header"},
    "local-docs": frozenset({"splits"}),
}
ALL_SETTINGS: frozenset[str] = frozenset().union(*HEEDED_SETTINGS.values())

SUFFIXES: dict[str, str] = {
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}


def guess_format(path: Path) -> str | None:
    """The name of the format that a file's suffix speaks of, compression aside; None if it says nothing."""
    return SUFFIXES.get(file_suffix(path))
