"""Read what the language probes are made of: JSON lines and plain text, perhaps compressed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.files import is_remote
from ...corpus.streams import file_suffix, open_stream, read_lines

__all__ = ["JSON_SUFFIXES", "find_json_files", "read_records", "read_texts", "text_of"]

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


def find_json_files(path: str | Path) -> list[str | Path]:
    """The JSON lines files that a path means: itself, or all below a folder, by name.

    Raises:
        DataError: a folder holds none.
    """
    if is_remote(path) or not Path(path).is_dir():
        return [path]
    found = sorted(file for file in Path(path).rglob("*") if file.is_file() and _is_json(file))
    if not found:
        raise DataError(f"{path}: holds no {' or '.join(JSON_SUFFIXES)} file; check the path")
    return list(found)


def _is_json(path: Path) -> bool:
    return file_suffix(path) in JSON_SUFFIXES and not path.name.startswith(".")


def read_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the objects of a JSON lines file.

    Args:
        path: the file; `.gz`, `.bz2`, `.xz` and `.zst` are unpacked.

    Yields:
        Line number from 1, and the object. Blank lines are left out.

    Raises:
        DataError: the file cannot be read, or a line of it is no JSON object.
    """
    for line, text in _lines(path):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{line}: is not valid JSON ({error}); expected one object a line"
            ) from error
        if not isinstance(value, dict):
            raise DataError(f"{path}:{line}: holds a {type(value).__name__}, expected one JSON object a line")
        yield line, value


def read_texts(path: str | Path, text_field: str = "text", limit: int | None = None) -> list[str]:
    """Read texts: the lines of a plain file, or a field of JSON lines.

    Args:
        path: the file, perhaps compressed; its suffix tells which kind.
        text_field: the key of the text.
        limit: how many to read at most; None reads all.

    Raises:
        DataError: the file cannot be read, has no text, or a line of it has none.
    """
    texts: list[str] = []
    if file_suffix(path) in JSON_SUFFIXES:
        for line, record in read_records(path):
            texts.append(text_of(record, text_field, f"{path}:{line}", "set text_field"))
            if len(texts) == limit:
                break
    else:
        for _, text in _lines(path):
            texts.append(text.strip())
            if len(texts) == limit:
                break
    if not texts:
        raise DataError(f"{path}: holds no text; expected at least one line")
    return texts


def text_of(record: dict[str, Any], key: str, place: str, remedy: str) -> str:
    """A text of a record, without the white space around it.

    Raises:
        DataError: it is missing, empty or something else.
    """
    if key not in record:
        raise DataError(f'{place}: has no "{key}", only {", ".join(record) or "nothing"}; {remedy}')
    value = record[key]
    if not isinstance(value, str) or not value.strip():
        shown = json.dumps(value, ensure_ascii=False)
        raise DataError(f'{place}: "{key}" is {shown[:60]}, expected a text; {remedy}')
    return value.strip()


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    with open_stream(path) as stream:
        for number, raw in read_lines(stream, path):
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: byte 0x{raw[error.start]:02x} is not valid UTF-8; "
                    "save the file as UTF-8"
                ) from error
            if text.strip():
                yield number, text
