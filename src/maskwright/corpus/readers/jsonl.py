"""JSON Lines: one object on each line, the text in one of its fields.

Malformed lines are counted and passed over up to a limit; a missing or mistyped text field stops at
once, because it would be wrong on every line. Memory: one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...core.config import nearest_name
from ...core.errors import DataError
from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile
from ..streams import open_stream, read_lines
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
    with open_stream(file.path) as stream:
        if not stream.peek(1):
            audit.count_unread(options.source, str(file.path), Drop("empty_file"))
        for number, raw in read_lines(stream, file.path):
            line = None if raw.isspace() else decode(raw, file, number, options, audit)
            if line is None:
                continue
            row = _parse(line)
            if not isinstance(row, dict):
                bad_lines.add(number, "malformed_json", row, raw)
                continue
            text = mend_surrogates(_text(row, file, number, options), file, number, options, audit)
            if text is not None:
                yield Document(text, _id(row, file, number, options), options.source)


def _parse(line: str) -> dict[str, Any] | str:
    """The object on a line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return f"not valid JSON ({error})"
    return row if isinstance(row, dict) else f"{_kind(row)}, expected one JSON object on each line"


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
