"""One reader for each input format, all with one signature (`reader.Reader`), found by name or suffix."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ..streams import file_suffix
from .arrow import BOOKKEEPING_FILES, read_arrow
from .csv_tsv import read_csv, read_tsv
from .jsonl import read_jsonl
from .local_docs import read_local_docs
from .parquet import read_parquet
from .plain_text import read_plain_text
from .reader import Reader, ReadOptions
from .warc import read_warc
from .wiki_extractor import read_wiki_extractor

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
    "parquet": read_parquet,
    "arrow": read_arrow,
    "warc": read_warc,
    "wiki-extractor": read_wiki_extractor,
    "local-docs": read_local_docs,
}

_TEXT_SETTINGS = frozenset({"encoding_errors", "split_documents"})
_ROW_SETTINGS = frozenset({"text_field", "id_field", "encoding_errors", "max_bad_lines"})
_COLUMN_SETTINGS = frozenset({"text_field", "id_field", "encoding_errors"})
_RECORD_SETTINGS = frozenset({"encoding_errors", "max_bad_lines"})

HEEDED_SETTINGS: dict[str, frozenset[str]] = {
    "text": _TEXT_SETTINGS,
    "markdown": _TEXT_SETTINGS,
    "jsonl": _ROW_SETTINGS,
    "csv": _ROW_SETTINGS | {"header"},
    "tsv": _ROW_SETTINGS | {"header"},
    "parquet": _COLUMN_SETTINGS,
    "arrow": _COLUMN_SETTINGS,
    "warc": _RECORD_SETTINGS,
    "wiki-extractor": _RECORD_SETTINGS,
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
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".warc": "warc",
    ".wet": "warc",
}


def guess_format(path: Path | str) -> str | None:
    """The name of the format that a file's name speaks of, compression aside; None if it says nothing.

    It is the suffix that tells, but for the bookkeeping files of dataset folders.
    """
    if PurePosixPath(str(path)).name in BOOKKEEPING_FILES:
        return "arrow"
    return SUFFIXES.get(file_suffix(path))
