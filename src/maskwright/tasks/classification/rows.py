"""Files of rows, as people keep them: TSV, CSV or JSON lines, perhaps compressed, to numbered rows.

Labelled sets are small beside a corpus, so a file is read whole: the cost is about three times its
size in memory while it is read. Every fault is answered with the file and the line.

What counts as what:
- `.csv` has commas and double quotes; a quoted cell may hold commas, quotes (doubled) and new lines.
- `.jsonl`, `.ndjson` and `.json` have one object a line.
- Everything else has tabs and no quoting at all: a quote is a character like any other, as in the
  files of GLUE, and one line is one row.
- `.gz` and `.zst` may follow; what decides is the content, not the name.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from ...core.errors import DataError
from ...core.files import read_bytes

__all__ = ["file_kind", "json_rows", "read_text_file", "table_rows"]

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f; parallel compressors begin with such a frame
_COMPRESSED = (".gz", ".zst")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
# The limit on the length of a cell is one setting for the whole process, in the csv module.
_csv_limit_lock = threading.Lock()


def file_kind(path: str | Path) -> str:
    """What a file's name says it holds: "csv", "json" or "tsv"."""
    name = PurePath(str(path).lower())
    suffix = PurePath(name.stem).suffix if name.suffix in _COMPRESSED else name.suffix
    if suffix in _JSON_SUFFIXES:
        return "json"
    return "csv" if suffix == ".csv" else "tsv"


def read_text_file(path: str | Path) -> str:
    """Read a whole text file, decompressed, without its byte-order mark.

    Raises:
        DataError: it is missing, unreadable, damaged, empty, binary or not UTF-8; the last with
            the line.
    """
    data = _decompress(path, read_bytes(path))
    if data.startswith(_UTF16_MARKS):
        raise DataError(f"{path}: is UTF-16; save it as UTF-8")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DataError(f"{path}:{line}: holds a zero byte, so it is binary; expected a text file in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        value = data[error.start]
        raise DataError(
            f"{path}:{line}: byte 0x{value:02x} is not valid UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error
    if not text.strip():
        raise DataError(f"{path}: is empty; expected at least one row")
    return text


def table_rows(path: str | Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Cut the text of a TSV or CSV file into rows.

    Args:
        path: decides between the two, and is named in messages.
        text: the whole content.

    Yields:
        Line number on which the row starts, counted from 1, and its cells. Blank lines are left out.

    Raises:
        DataError: a row has another number of cells than the first, or its quotes do not match.
    """
    is_csv = file_kind(path) == "csv"
    first_line, width = 0, 0
    for line, cells in _csv_rows(path, text) if is_csv else _tsv_rows(text):
        if not width:
            first_line, width = line, len(cells)
        if len(cells) != width:
            remedy = "put a text that holds a comma in double quotes" if is_csv else "a text must hold no tab"
            raise DataError(
                f"{path}:{line}: has {_columns(len(cells))}, line {first_line} has {width}; {remedy}"
            )
        yield line, cells


def json_rows(path: str | Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the objects of a JSON lines file.

    Args:
        path: named in messages.
        text: the whole content.

    Yields:
        Line number, counted from 1, and the object. Blank lines are left out.

    Raises:
        DataError: a line is not JSON, or is something other than an object.
    """
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{line}: is not valid JSON ({error}); expected one object a line"
            ) from error
        if not isinstance(value, dict):
            kind = type(value).__name__
            raise DataError(f"{path}:{line}: holds a {kind}, expected one JSON object a line")
        yield line, value


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _tsv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    # Not str.splitlines: it also cuts at characters that belong to the text, such as U+2028.
    for line, content in enumerate(text.split("\n"), 1):
        content = content.removesuffix("\r")
        if content.strip():
            yield line, content.split("\t")


def _csv_rows(path: str | Path, text: str) -> list[tuple[int, list[str]]]:
    rows = []
    line = 1
    with _cells_of_any_length():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    rows.append((line, cells))
                line = reader.line_num + 1
        except csv.Error as error:
            reason = "a quote is never closed" if "end of data" in str(error) else str(error)
            raise DataError(
                f"{path}:{line}: is not valid CSV ({reason}); "
                "put the text in double quotes, and double those inside it"
            ) from error
    return rows


@contextlib.contextmanager
def _cells_of_any_length() -> Iterator[None]:
    with _csv_limit_lock:
        before = csv.field_size_limit(2**31 - 1)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _decompress(path: str | Path, data: bytes) -> bytes:
    if data.startswith(_GZIP_MAGIC):
        return _gunzip(path, data)
    if data.startswith(_ZSTD_MAGIC) or (data[1:4] == _ZSTD_SKIPPABLE and data[0] >> 4 == 5):
        return _unzstd(path, data)
    suffix = PurePath(str(path).lower()).suffix
    if data and suffix in _COMPRESSED:
        raise DataError(f"{path}: is named {suffix}, but its content is not compressed that way; rename it")
    return data


def _gunzip(path: str | Path, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: is a damaged or cut-off gzip file ({error}); fetch it again") from error


def _unzstd(path: str | Path, data: bytes) -> bytes:
    import zstandard

    pieces = []
    while data:  # a file may hold several frames one after the other
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            pieces.append(decompressor.decompress(data))
        except zstandard.ZstdError as error:
            raise DataError(f"{path}: is a damaged zstd file ({error}); fetch it again") from error
        if not decompressor.eof:
            raise DataError(f"{path}: is a zstd file that was cut off; fetch it again")
        data = decompressor.unused_data
    return b"".join(pieces)
