"""Read the texts of evaluation sets, in whatever shape they come.

JSON and JSON Lines give every string in them, at any depth (so SQuAD's nested file needs no reader of its
own); tables give every cell; all other formats go through the readers of the corpus, a document a line
where it is plain text. Unlike a corpus, an evaluation set with a malformed line is refused. Memory: one
line, or the file where it is one JSON value.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from typing import Any

from ...core.errors import DataError
from ..audit import Audit
from ..sources import SourceFile, find_files
from ..streams import file_suffix, open_stream, read_lines, read_whole
from .config import EvaluationConfig

__all__ = ["evaluation_texts"]


def evaluation_texts(config: EvaluationConfig) -> Iterator[str]:
    """Read one evaluation set.

    Args:
        config: where it is, and which fields to look at.

    Yields:
        Its texts in order.

    Raises:
        DataError: a file is missing, malformed, of unknown format, or has none of the fields.
    """
    for file in find_files(config.paths):
        suffix = file_suffix(file.path)
        if suffix in (".jsonl", ".ndjson", ".json"):
            yield from _required(_json_texts(file, suffix == ".json", config.fields), file, config)
        elif suffix in (".csv", ".tsv"):
            yield from _table_texts(file, suffix == ".tsv", config)
        else:
            yield from _document_texts(file, config)


def _json_texts(file: SourceFile, whole: bool, fields: Collection[str] | None) -> Iterator[str]:
    with open_stream(file.path) as stream:
        pieces = [(1, read_whole(stream, file.path))] if whole else read_lines(stream, file.path)
        for number, raw in pieces:
            if raw.isspace():
                continue
            try:
                value = json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{file.path}:{number}: is not valid JSON ({error}); mend the file"
                ) from error
            yield from _strings(value, fields)


def _strings(value: Any, fields: Collection[str] | None) -> Iterator[str]:
    """All strings inside a JSON value; with fields, only those below a key of that name."""
    if isinstance(value, str):
        if fields is None:
            yield value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _strings(child, None if fields is None or key in fields else fields)
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child, fields)


def _table_texts(file: SourceFile, tabs: bool, config: EvaluationConfig) -> Iterator[str]:
    columns: list[int] | None = None
    with open_stream(file.path) as stream:
        lines = (raw.decode(errors="replace") for _, raw in read_lines(stream, file.path))
        # Tables with tabs are written without quoting, so a quotation mark there is one.
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines)
        try:
            for row in rows:
                if config.fields is not None and columns is None:
                    columns = [place for place, name in enumerate(row) if name.strip() in config.fields]
                    next(_required(iter(row[:1] if columns else ()), file, config))
                    continue
                yield from row if columns is None else (row[place] for place in columns if place < len(row))
        except csv.Error as error:
            raise DataError(
                f"{file.path}:{rows.line_num}: is not valid CSV ({error}); mend the file"
            ) from error


def _document_texts(file: SourceFile, config: EvaluationConfig) -> Iterator[str]:
    # The readers come with the local docs, which deduplicate; at the top this import would be a circle.
    from ..readers import READERS, SUFFIXES, ReadOptions, guess_format

    name = guess_format(file.path)
    if name is None:
        known = ", ".join(sorted({*SUFFIXES, ".json"}))
        raise DataError(f"{file.path}: its suffix does not tell the format (known: {known}); rename it")
    field = config.fields[0] if config.fields else "text"
    options = ReadOptions(config.label, text_field=field, split_documents="line")
    for document in READERS[name](file, options, Audit()):
        yield document.text


def _required(texts: Iterator[str], file: SourceFile, config: EvaluationConfig) -> Iterator[str]:
    """Pass texts on; none at all means that the fields are wrong."""
    empty = True
    for text in texts:
        empty = False
        yield text
    if empty and config.fields is not None:
        fields = ", ".join(config.fields)
        raise DataError(f"{file.path}: has no text in the fields {fields}; set fields to what it has")
