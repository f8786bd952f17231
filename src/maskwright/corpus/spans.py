"""Cut files into spans that are read by themselves, and find out what a span has to know.

A span needs to know the number of its first line, so that ids do not depend on how a file was cut.
Line ends are counted for that, at about the speed of the disk; each count is independent of the
others and may be made in another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO

import numpy as np

from ..core.errors import DataError
from .sources import SourceFile, Span
from .streams import MAX_RECORD_BYTES, UTF8_MARK, open_bytes

__all__ = [
    "CountRequest",
    "after_text_line",
    "count_lines",
    "count_serially",
    "cut_lines",
    "cut_rows",
    "number_lines",
    "requests_for",
]

_BLOCK_BYTES = 1 << 20
_NEWLINE = 10


@dataclass(frozen=True, slots=True)
class CountRequest:
    """A stretch of a file whose line ends are to be counted.

    Args:
        file: what to read.
        start: first byte.
        stop: the byte after the last.
    """

    file: SourceFile
    start: int
    stop: int


def count_lines(file: SourceFile, start: int, stop: int) -> int:
    """Count the line ends in a stretch of an uncompressed file.

    Args:
        file: what to read.
        start: first byte.
        stop: the byte after the last.

    Raises:
        DataError: the file cannot be read or changed since it was listed.
    """
    buffer = np.empty(_BLOCK_BYTES, np.uint8)
    count, left = 0, stop - start
    try:
        with open_bytes(file.path, version=file.version, start=start) as raw:
            while left > 0:
                size = raw.readinto(buffer[:left])  # type: ignore[attr-defined] # every raw file has it
                if not size:
                    break
                count += int(np.count_nonzero(buffer[:size] == _NEWLINE))
                left -= size
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read ({error.strerror or error})") from error
    return count


def count_serially(requests: Sequence[CountRequest]) -> list[int]:
    """Count the line ends of each request, one after the other."""
    return [count_lines(request.file, request.start, request.stop) for request in requests]


def cut_lines(num_bytes: int, split_bytes: int) -> list[Span]:
    """Cut a file of lines into spans; their line numbers are still missing.

    Args:
        num_bytes: size of the file.
        split_bytes: size of all spans but the last.
    """
    return [
        Span(start, min(start + split_bytes, num_bytes)) for start in range(0, max(num_bytes, 1), split_bytes)
    ]


def cut_rows(group_bytes: Sequence[int], split_bytes: int) -> list[tuple[Span, int]]:
    """Gather row groups into spans.

    Args:
        group_bytes: size of each group.
        split_bytes: a span is closed when it has so many bytes.

    Returns:
        Spans with their sizes in bytes.
    """
    spans: list[tuple[Span, int]] = []
    first, size = 0, 0
    for number, group in enumerate(group_bytes):
        size += group
        if size >= split_bytes or number == len(group_bytes) - 1:
            spans.append((Span(first, number + 1), size))
            first, size = number + 1, 0
    return spans


def requests_for(file: SourceFile, spans: Sequence[Span]) -> list[CountRequest]:
    """What has to be counted to number the lines of a file's spans.

    A line begins where the byte before it ends another, so everything is counted one byte early.
    """
    return [CountRequest(file, max(0, span.start - 1), span.stop - 1) for span in spans[:-1]]


def number_lines(spans: Sequence[Span], counts: Sequence[int]) -> list[Span]:
    """Fill in the first line of each span.

    Args:
        spans: of one file, in order.
        counts: answers to `requests_for`.
    """
    numbered, ends = [spans[0]], 0
    for span, count in zip(spans[1:], counts, strict=True):
        ends += count
        # Two more than the line ends before the byte before the span: that byte's own line is one,
        # whether it ends there or goes on, and lines count from 1.
        numbered.append(replace(span, first_line=ends + 2))
    return numbered


def after_text_line(stream: IO[bytes], span: Span | None) -> bool:
    """Whether the line before the first one of a span has more than white space.

    Args:
        stream: as `open_file` opened it; it is left at the same place.
        span: where reading begins.
    """
    if span is None or span.start == 0:
        return False
    here = span.start - 1
    found = _text_at_start(stream, span.start) if here <= len(UTF8_MARK) else _text_around(stream, here)
    stream.seek(here)
    return found


def _text_at_start(stream: IO[bytes], start: int) -> bool:
    """The same for a place so near the file's start that a byte-order mark may reach over it."""
    stream.seek(0)
    position, text = 0, b""
    while position < start and (line := stream.readline(MAX_RECORD_BYTES)):
        text = line.removeprefix(UTF8_MARK) if position == 0 else line
        position += len(line)
    return bool(text) and not text.isspace()


def _text_around(stream: IO[bytes], here: int) -> bool:
    """Whether the line that holds a byte has text, looking forward to its end, then back to its start."""
    stream.seek(here)
    while piece := stream.readline(_BLOCK_BYTES):
        if not piece.isspace():
            return True
        if piece.endswith(b"\n"):
            break
    while here > 0:
        begin = here - _BLOCK_BYTES
        begin = begin if begin >= len(UTF8_MARK) else 0  # a byte-order mark is never cut
        stream.seek(begin)
        before = stream.read(here - begin)
        tail = before[before.rfind(b"\n") + 1 :]
        if begin == 0 and len(tail) == len(before):
            tail = tail.removeprefix(UTF8_MARK)
        if tail and not tail.isspace():
            return True
        if len(tail) < len(before):
            return False
        here = begin
    return False
