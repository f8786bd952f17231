"""JSON Lines: one object on each line, the text in one of its fields.

Malformed lines are counted and passed over up to a limit; a missing or mistyped text field stops at
once, because it would be wrong on every line. `orjson` parses the bytes of a line; what it refuses is
decoded under the source's policy and given to the standard parser, which takes more (`NaN`, half
surrogate pairs) and says what is wrong. Memory: one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import starmap
from typing import Any

import orjson

from ...core.config import nearest_name
from ...core.errors import DataError
from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile
from ..streams import open_file, read_lines
from .reader import BadLines, ReadOptions, decode, mend_surrogates

__all__ = ["read_jsonl"]

_KINDS = {list: "a list", dict: "an object", bool: "true or false", int: "a number", float: "a number"}


def read_jsonl(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read a JSON Lines file.

    Args:
        file: the file, compressed or not.
        options: `text_field`, `id_field`, `encoding_errors` and `max_bad_lines` apply.
        audit: told about malformed lines (`malformed_json`), bad bytes (`invalid_utf8`) and an empty
            file (`empty_file`).

    Yields:
        Documents. The id is the source's name with the id field, or with the label and line number.
        A text of `null` becomes an empty document, for the cleaning steps to drop and count.

    Raises:
        DataError: the file cannot be read, has too many malformed lines, or lacks a field.
    """
    bad_lines = BadLines(file, options, audit)

    def document(number: int, raw: bytes) -> Document | None:
        row, fast = _row(raw, file, number, options, audit)
        if row is None:
            return None
        if isinstance(row, str):
            bad_lines.add(number, "malformed_json", row, raw)
            return None
        text: str | None = _text(row, file, number, options)
        if text and not fast:
            text = mend_surrogates(text, file, number, options, audit)
        return None if text is None else Document(text, _id(row, file, number, options), options.source)

    with open_file(file) as stream:
        if not stream.peek(1):
            audit.count_unread(options.source, str(file.path), Drop("empty_file"))
        # No name here holds on to a document: a large one should not stay while it is worked on.
        yield from filter(None, starmap(document, read_lines(stream, file.path, file.span)))


def _row(
    raw: bytes, file: SourceFile, line: int, options: ReadOptions, audit: Audit
) -> tuple[dict[str, Any] | str | None, bool]:
    """The object on a line, or what is wrong with it, or None for nothing; and whether `orjson` parsed it."""
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    else:
        if not isinstance(row, dict):
            return _no_object(row), True
        # Integers of more than 64 bits come as floats.
        if options.id_field is None or not isinstance(row.get(options.id_field), float):
            return row, True
    text = None if raw.isspace() else decode(raw, file, line, options, audit)
    return (None if text is None else _parse(text)), False


def _parse(line: str) -> dict[str, Any] | str:
    """The object on a line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return f"not valid JSON ({error})"
    return row if isinstance(row, dict) else _no_object(row)


def _no_object(value: Any) -> str:
    return f"{_kind(value)}, expected one JSON object on each line"


def _text(row: dict[str, Any], file: SourceFile, line: int, options: ReadOptions) -> str:
    text = _field(row, options.text_field, "text_field", file, line)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DataError(
            f'{file.path}:{line}: "{options.text_field}" is {_kind(text)}, expected a string (set text_field)'
        )
    return text


def _id(row: dict[str, Any], file: SourceFile, line: int, options: ReadOptions) -> str:
    if options.id_field is None:
        return f"{options.source}:{file.label}#{line}"
    value = _field(row, options.id_field, "id_field", file, line)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(
            f'{file.path}:{line}: "{options.id_field}" is {_kind(value)}, '
            "expected a string or an integer (set id_field)"
        )
    return f"{options.source}:{value}"


def _field(row: dict[str, Any], name: str, key: str, file: SourceFile, line: int) -> Any:
    if name not in row:
        raise DataError(f'{file.path}:{line}: has no "{name}"{nearest_name(name, list(row))} (set {key})')
    return row[name]


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS.get(type(value), "a string")
