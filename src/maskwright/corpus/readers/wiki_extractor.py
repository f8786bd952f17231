"""What WikiExtractor writes: articles between `<doc id="..." url="..." title="...">` and `</doc>`.

Only a whole line can open or close a document, so text that looks like tags stays text. An opening
line inside a document, and a file that ends inside one, mean that a `</doc>` is missing: what was
read of that document counts as one malformed line and is not handed out. Memory: one document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from ...core.errors import DataError
from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile
from ..streams import MAX_RECORD_BYTES, open_stream, read_lines
from .reader import BadLines, ReadOptions, decode

__all__ = ["read_wiki_extractor"]

# Titles are not escaped: one may hold quotes, and even ">".
_OPEN = re.compile(rb'<doc id="[^"]+" (?:[a-z]+="[^"]*" )*title=".*">\s*')
_FACTS = re.compile(r'<doc id="([^"]+)"(.*?) title="(.*)">\s*', re.DOTALL)
_URL = re.compile(r' url="([^"]*)"')


def read_wiki_extractor(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read a file of WikiExtractor's text output, such as `AA/wiki_00` or `AA/wiki_00.bz2`.

    Args:
        file: the file, compressed or not. It has no span.
        options: `encoding_errors` and `max_bad_lines` apply.
        audit: told about documents that are not closed (`unclosed_document`), text between documents
            (`text_outside_document`), bad bytes (`invalid_utf8`) and an empty file (`empty_file`).

    Yields:
        Documents: all lines between the tags, the title's own line included. The id is the source's
        name with the id of the article; `title` and `url` are facts of the document.

    Raises:
        DataError: the file cannot be read, has too many malformed lines, does not begin with a document,
            or a document in it is too long.
    """
    bad_lines = BadLines(file, options, audit)
    with open_stream(file.path, version=file.version) as stream:
        if not stream.peek(1):
            audit.count_unread(options.source, str(file.path), Drop("empty_file"))
        for line, raw in _records(stream, file, bad_lines):
            text = decode(raw, file, line, options, audit)
            if text is not None:
                yield _document(text, options.source)


def _records(stream: IO[bytes], file: SourceFile, bad_lines: BadLines) -> Iterator[tuple[int, bytes]]:
    """Each document with its opening line and without its closing one, and the opening line's number."""
    first, size, lines = 0, 0, list[bytes]()
    begun = False
    for number, raw in read_lines(stream, file.path):
        if _OPEN.fullmatch(raw):
            if lines:
                _unclosed(bad_lines, first, lines, f"before the next one opens in line {number}")
            begun, first, size, lines = True, number, len(raw), [raw]
        elif lines and raw.rstrip() == b"</doc>":
            yield first, b"".join(lines)
            lines = []
        elif lines:
            size += len(raw)
            _check_size(size, file, first)
            lines.append(raw)
        elif not raw.isspace():
            if not begun:
                raise _no_document(file, number, raw)
            bad_lines.add(number, "text_outside_document", "is text outside of a document", raw)
    if lines:
        _unclosed(bad_lines, first, lines, "to the end of the file, which may be cut off")


def _document(text: str, source: str) -> Document:
    head, _, body = text.partition("\n")
    facts = _FACTS.fullmatch(head)
    assert facts is not None, head
    name, middle, title = facts.groups()
    url = _URL.search(middle)
    meta = {"title": title, **({"url": url.group(1)} if url else {})}
    return Document(body.strip("\r\n"), f"{source}:{name}", source, meta)


def _unclosed(bad_lines: BadLines, first: int, lines: list[bytes], where: str) -> None:
    problem = f"the document that opens here is not closed {where}"
    bad_lines.add(first, "unclosed_document", problem, b"".join(lines))


def _check_size(size: int, file: SourceFile, first: int) -> None:
    if size > MAX_RECORD_BYTES:
        raise DataError(
            f"{file.path}:{first}: the document that opens here is longer than {MAX_RECORD_BYTES >> 20} MiB; "
            "is its </doc> missing?"
        )


def _no_document(file: SourceFile, number: int, raw: bytes) -> DataError:
    hint = "set format to jsonl" if raw.startswith(b"{") else "set format to what the file is"
    return DataError(
        f'{file.path}:{number}: expected a line <doc id="..." url="..." title="...">, '
        f"as WikiExtractor writes ({hint})"
    )
