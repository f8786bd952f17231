"""What all readers share: their signature, their options, and how they treat bad bytes and lines.

A reader is a function from one file to the documents in it. It is lazy, holds one record in memory
at a time, tells the audit about every record that does not become a document, and raises
`DataError` with `file:line` for what cannot be skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ...core.errors import DataError
from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile

__all__ = [
    "BadLines",
    "EncodingErrors",
    "ReadOptions",
    "Reader",
    "SplitDocuments",
    "decode",
    "mend_surrogates",
]

EncodingErrors = Literal["strict", "replace", "skip"]
SplitDocuments = Literal["file", "line", "block"]

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read one source; every reader takes what concerns it.

    Args:
        source: name of the source, the first part of document ids.
        text_field: field or column that holds the text; a column number from 0 without a header.
        id_field: field or column that holds the id; None counts lines instead.
        header: the first row of a table names its columns.
        encoding_errors: what to do about bytes that are not UTF-8: `strict` stops, `replace` puts
            U+FFFD and counts a repair, `skip` drops the record and counts it.
        max_bad_lines: malformed lines to pass over in one file before stopping.
        split_documents: what makes a document in plain text: the file, a line, or a block of lines
            between blank ones.
        splits: parts of the local docs to take: `train`, `validation`, `test`.
        cache_folder: where the local docs may keep what they collected; None collects anew.
    """

    source: str
    text_field: str = "text"
    id_field: str | None = None
    header: bool = True
    encoding_errors: EncodingErrors = "replace"
    max_bad_lines: int = 100
    split_documents: SplitDocuments = "file"
    splits: tuple[str, ...] = ("train", "validation")
    cache_folder: Path | None = None


class Reader(Protocol):
    """One input format. A Protocol, so that formats can be added without a common base class."""

    def __call__(self, file: SourceFile, options: ReadOptions, audit: Audit, /) -> Iterator[Document]:
        """Yield the file's documents in order."""
        ...


def decode(raw: bytes, file: SourceFile, line: int, options: ReadOptions, audit: Audit) -> str | None:
    """Decode a record as UTF-8 under the source's policy.

    Args:
        raw: bytes of the record.
        file: where it comes from.
        line: number of its first line, from 1.
        options: has the policy.
        audit: told about repairs and drops.

    Returns:
        The text, or None if the record is to be skipped.

    Raises:
        DataError: the policy is `strict`; the message has the file and the line.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        place = f"{file.path}:{line + raw.count(10, 0, error.start)}"
        problem = f"byte 0x{raw[error.start]:02x} is not UTF-8"
    if options.encoding_errors == "strict":
        raise DataError(f"{place}: {problem} (set encoding_errors to replace or skip, or convert the file)")
    if options.encoding_errors == "skip":
        audit.count_unread(options.source, place, Drop("invalid_utf8", problem), raw)
        return None
    audit.count_repair("invalid_utf8")
    return raw.decode(errors="replace")


def mend_surrogates(text: str, file: SourceFile, line: int, options: ReadOptions, audit: Audit) -> str | None:
    """Treat half surrogate pairs, which JSON escapes can smuggle in, like bytes that are not UTF-8.

    Args, Returns, Raises: as for `decode`, with a text in place of bytes.
    """
    found = None if text.isascii() else _SURROGATE.search(text)
    if found is None:
        return text
    place, problem = f"{file.path}:{line}", f"\\u{ord(found.group()):04x} is half a surrogate pair"
    if options.encoding_errors == "strict":
        raise DataError(f"{place}: {problem} (set encoding_errors to replace or skip, or mend the file)")
    if options.encoding_errors == "skip":
        raw = text.encode(errors="replace")
        audit.count_unread(options.source, place, Drop("invalid_utf8", problem), raw)
        return None
    audit.count_repair("invalid_utf8")
    return _SURROGATE.sub("\ufffd", text)


class BadLines:
    """Counts the malformed lines of one file, and stops at a limit.

    The limit holds for each file, not for the whole source, so that the outcome for a file does not
    depend on what was read before it. Where spans of a file are read apart, each stops at the limit
    by itself; `audit.bad_lines` has the counts by `source:label`, to be summed and held against it.
    """

    def __init__(self, file: SourceFile, options: ReadOptions, audit: Audit) -> None:
        self._file, self._options, self._audit = file, options, audit
        self._count = 0

    def add(self, line: int, reason: str, problem: str, raw: bytes) -> None:
        """Count one malformed line.

        Args:
            line: its number, from 1.
            reason: for the audit, such as `malformed_json`.
            problem: what is wrong with it.
            raw: its bytes.

        Raises:
            DataError: it is one more than the limit.
        """
        self._count += 1
        self._audit.bad_lines[f"{self._options.source}:{self._file.label}"] += 1
        place = f"{self._file.path}:{line}"
        if self._count > self._options.max_bad_lines:
            raise DataError(
                f"{place}: {problem}; this is malformed line number {self._count} of this file "
                f"(mend the file, or set max_bad_lines above {self._options.max_bad_lines})"
            )
        self._audit.count_unread(self._options.source, place, Drop(reason, problem), raw)
