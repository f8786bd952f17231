"""Plain text and Markdown: one document for each file, line, or block between blank lines.

Markdown is taken as it is written; its marks are part of the language that a model may learn.
Memory: one document.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from itertools import starmap

from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile
from ..spans import after_text_line
from ..streams import open_file, read_lines, read_placed_lines, read_whole
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

    def document(line: int, raw: bytes) -> Document | None:
        text = decode(raw, file, line, options, audit)
        place = "" if options.split_documents == "file" else f"#{line}"
        return None if text is None else Document(text, f"{name}{place}", options.source)

    name = f"{options.source}:{file.label}"
    with open_file(file) as stream:
        if not stream.peek(1):
            audit.count_unread(options.source, str(file.path), Drop("empty_file"))
            return
        # No name here holds on to a document: a large one should not stay while it is worked on.
        yield from filter(None, starmap(document, _records(stream, file, options)))


def _records(
    stream: io.BufferedReader, file: SourceFile, options: ReadOptions
) -> Iterator[tuple[int, bytes]]:
    """The file's records, each with the number of its first line."""
    if options.split_documents == "file":
        yield 1, read_whole(stream, file.path)
    elif options.split_documents == "line":
        for number, line in read_lines(stream, file.path, file.span):
            if not line.isspace():
                yield number, line.rstrip(b"\r\n")
    else:
        yield from _blocks(stream, file)


def _blocks(stream: io.BufferedReader, file: SourceFile) -> Iterator[tuple[int, bytes]]:
    """Blocks that begin in the file's span; the last one is read to its end."""
    inside = after_text_line(stream, file.span)  # of a block that began before the span
    stop = file.span.stop if file.span else sys.maxsize
    first, lines = 0, list[bytes]()
    for number, line, position in read_placed_lines(stream, file.path, file.span):
        if not (lines or inside) and position >= stop:
            return
        if line.isspace():
            if lines:
                yield first, b"".join(lines)
                lines.clear()
            inside = False
        elif not inside:
            first = first if lines else number
            lines.append(line)
        elif position >= stop:
            return
    if lines:
        yield first, b"".join(lines)
