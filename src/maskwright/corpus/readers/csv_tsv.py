"""Tables in text: CSV with quotes, TSV without, the text in one column.

CSV follows RFC 4180, so a quoted field may hold commas, doubled quotes and line ends. TSV takes
every character but tab and line end as it is, as the GLUE files need. Memory: one row.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO

from ...core.config import nearest_name
from ...core.errors import DataError
from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile
from ..streams import MAX_RECORD_BYTES, open_file, read_lines
from .reader import BadLines, ReadOptions, decode

__all__ = ["read_csv", "read_tsv"]

Row = tuple[int, list[str] | str]


class _Lines:
    """Decoded lines of a file that remember the numbers of the first and last line of a row."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self.number = 0
        self.first = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        self.first = self.first or self.number
        return line


Split = Callable[[_Lines, SourceFile], Iterator[Row]]


def read_csv(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read a table with commas and quotes.

    Args:
        file: the file, compressed or not. It has no span: a quoted field may hold line ends.
        options: `text_field`, `id_field`, `header`, `encoding_errors` and `max_bad_lines` apply.
        audit: told about malformed rows (`malformed_row`), bad bytes (`invalid_utf8`) and an empty file
            (`empty_file`).

    Yields:
        Documents. The id is the source's name with the id column, or with label and line number.

    Raises:
        DataError: the file cannot be read, has too many malformed rows, lacks a column, or a quote in
            it is never closed.
    """
    return _read(file, options, audit, _csv_rows)


def read_tsv(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read a table with tabs, without quoting; otherwise as `read_csv`. The file may have a span."""
    return _read(file, options, audit, _tsv_rows)


def _read(file: SourceFile, options: ReadOptions, audit: Audit, split: Split) -> Iterator[Document]:
    bad_lines = BadLines(file, options, audit)
    columns: tuple[int, int | None] | None = None
    header_line = 0
    if file.span and file.span.start > 0:
        header_line, columns = _find_header(file, options, split)
    with open_file(file) as stream:
        if not stream.peek(1):
            audit.count_unread(options.source, str(file.path), Drop("empty_file"))
        for line, row in split(_lines(stream, file, options, audit), file):
            if isinstance(row, str):
                bad_lines.add(line, "malformed_row", row, b"")
                continue
            if columns is None:
                columns = _find_columns(row, file, line, options)
                header_line = line if options.header else 0
            if line <= header_line:
                continue
            text_column, id_column = columns
            if len(row) <= max(text_column, id_column or 0):
                raw = " | ".join(row).encode()
                bad_lines.add(line, "malformed_row", f"has {len(row)} columns", raw)
                continue
            name = f"{file.label}#{line}" if id_column is None else row[id_column]
            yield Document(row[text_column], f"{options.source}:{name}", options.source)


def _find_header(
    file: SourceFile, options: ReadOptions, split: Split
) -> tuple[int, tuple[int, int | None] | None]:
    """The columns that the file's first row tells, for a span that does not hold it, and its line.

    What the row costs in repairs and drops is counted where the span that holds it is read.
    """
    whole = replace(file, span=None)
    with open_file(whole) as stream:
        for line, row in split(_lines(stream, whole, options, Audit()), whole):
            if not isinstance(row, str):
                return (line if options.header else 0), _find_columns(row, file, line, options)
    return 0, None


def _lines(stream: IO[bytes], file: SourceFile, options: ReadOptions, audit: Audit) -> _Lines:
    def decoded() -> Iterator[tuple[int, str]]:
        for number, raw in read_lines(stream, file.path, file.span):
            line = decode(raw, file, number, options, audit)
            if line is not None:
                yield number, line

    return _Lines(decoded())


def _csv_rows(lines: _Lines, file: SourceFile) -> Iterator[Row]:
    """Rows with their first line's number; in place of a malformed row, what is wrong with it."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    rows = csv.reader(lines, strict=True)
    while True:
        lines.first = 0
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(f"{file.path}:{lines.first}: a quote opened here is never closed") from error
            yield lines.first, f"not valid CSV ({error})"
            continue
        if row:
            yield lines.first, row


def _tsv_rows(lines: _Lines, file: SourceFile) -> Iterator[Row]:
    for line in lines:
        row = line.rstrip("\r\n")
        if row:
            yield lines.number, row.split("\t")


def _find_columns(
    row: list[str], file: SourceFile, line: int, options: ReadOptions
) -> tuple[int, int | None]:
    text_column = _find_column(row, options.text_field, "text_field", file, line, options.header)
    if options.id_field is None:
        return text_column, None
    return text_column, _find_column(row, options.id_field, "id_field", file, line, options.header)


def _find_column(row: list[str], name: str, key: str, file: SourceFile, line: int, header: bool) -> int:
    if header:
        names = [cell.strip() for cell in row]
        if name in names:
            return names.index(name)
        raise DataError(f'{file.path}:{line}: has no column "{name}"{nearest_name(name, names)} (set {key})')
    if name.isdecimal() and int(name) < len(row):
        return int(name)
    raise DataError(
        f'{file.path}:{line}: "{name}" is no column of a table without header, '
        f"expected a number from 0 to {len(row) - 1} (set {key}, or header to true)"
    )
