"""Plain text and Markdown: one document for each file, line, or block between blank lines.

Markdown is taken as it is written; its marks are part of the language that a model may learn.
Memory: one document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile
from ..streams import open_stream, read_lines, read_whole
from .reader import ReadOptions, decode

__all__ = ["read_plain_text"]


def read_plain_text(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read a text file.

    Args:
        file: the file, compressed or not.
        options: `split_documents` and `encoding_errors` apply.
        audit: told about an empty file (`empty_file`) and about bad bytes (`invalid_utf8`).

    Yields:
        Documents. Blank lines make no documents and are not counted. The id is `source:label`, with
        `#` and the number of the first line where a file holds several.

    Raises:
        DataError: the file is missing, unreadable, binary, damaged or too long for one document.
    """
    with open_stream(file.path) as stream:
        if not stream.peek(1):
            audit.count_unread(options.source, str(file.path), Drop("empty_file"))
            return
        for line, raw in _records(stream, file, options):
            text = decode(raw, file, line, options, audit)
            if text is not None:
                place = "" if options.split_documents == "file" else f"#{line}"
                yield Document(text, f"{options.source}:{file.label}{place}", options.source)


def _records(stream: IO[bytes], file: SourceFile, options: ReadOptions) -> Iterator[tuple[int, bytes]]:
    """The file's records, each with the number of its first line."""
    if options.split_documents == "file":
        yield 1, read_whole(stream, file.path)
    elif options.split_documents == "line":
        for number, line in read_lines(stream, file.path):
            if not line.isspace():
                yield number, line.rstrip(b"\r\n")
    else:
        yield from _blocks(stream, file)


def _blocks(stream: IO[bytes], file: SourceFile) -> Iterator[tuple[int, bytes]]:
    first, lines = 0, list[bytes]()
    for number, line in read_lines(stream, file.path):
        if not line.isspace():
            first = first if lines else number
            lines.append(line)
        elif lines:
            yield first, b"".join(lines)
            lines.clear()
    if lines:
        yield first, b"".join(lines)
