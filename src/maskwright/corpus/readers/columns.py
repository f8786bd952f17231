"""What Parquet and Arrow share: which columns are read, and how their rows become documents.

Values are taken out one at a time, as bytes, so that memory is one batch and one document, and so
that text which is not UTF-8 follows the source's policy instead of ending the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ...core.config import nearest_name
from ...core.errors import DataError, MissingDependencyError
from ..audit import Audit
from ..document import Document
from ..sources import SourceFile
from .binary import decode_record
from .reader import ReadOptions

__all__ = ["column_names", "damage_as_errors", "import_pyarrow", "row_documents"]


def import_pyarrow(purpose: str) -> ModuleType:
    """Import `pyarrow`, which an extra brings.

    Args:
        purpose: what for, as the end of "needed to ...".

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "corpus", purpose) from error
    module: ModuleType = pyarrow
    return module


@contextlib.contextmanager
def damage_as_errors(file: SourceFile, kind: str) -> Iterator[None]:
    """Turn what `pyarrow` raises inside the block into `DataError`.

    Args:
        file: for messages.
        kind: what the file should be.

    Raises:
        DataError: `pyarrow` cannot make sense of the file.
    """
    pyarrow = import_pyarrow(f"read {kind} files")
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        message = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"{file.path}: is no {kind} file, or is damaged or cut off ({message}); "
            "fetch or write the file again"
        ) from error


def column_names(schema: Any, file: SourceFile, options: ReadOptions) -> list[str]:
    """Check the columns of a table.

    Args:
        schema: a `pyarrow.Schema`.
        file: for messages.
        options: `text_field` and `id_field` apply.

    Returns:
        The columns to read: of the text, and of the id if there is one and it is another.

    Raises:
        DataError: a column is missing, there twice, or of a type that cannot be used.
    """
    _check(schema, options.text_field, "text_field", file, ids=False)
    if options.id_field is None:
        return [options.text_field]
    _check(schema, options.id_field, "id_field", file, ids=True)
    return list(dict.fromkeys((options.text_field, options.id_field)))


def row_documents(
    batch: Any, first_row: int, file: SourceFile, options: ReadOptions, audit: Audit
) -> Iterator[Document]:
    """Make documents of the rows of a batch.

    Args:
        batch: a `pyarrow.RecordBatch` with the columns that `column_names` told.
        first_row: number of its first row in the file, from 1.
        file: for ids and messages.
        options: `text_field`, `id_field` and `encoding_errors` apply.
        audit: told about bytes that are not UTF-8 (`invalid_utf8`).

    Yields:
        Documents. A null becomes an empty text, for the cleaning steps to drop and count.

    Raises:
        DataError: a row has no id, or bytes that are not UTF-8 and the policy is `strict`.
    """
    texts = batch.column(options.text_field)
    ids = None if options.id_field is None else batch.column(options.id_field)
    for index in range(batch.num_rows):
        row = first_row + index
        raw = _bytes(texts[index])
        text = decode_record(raw, "utf-8", f"{file.path}:{row}", options, audit) if raw else ""
        if text is not None:
            name = f"{file.label}#{row}" if ids is None else _id(ids[index], file, row, options)
            yield Document(text, f"{options.source}:{name}", options.source)


def _check(schema: Any, name: str, key: str, file: SourceFile, *, ids: bool) -> None:
    count = schema.names.count(name)
    if count == 0:
        raise DataError(f'{file.path}: has no column "{name}"{nearest_name(name, schema.names)} (set {key})')
    if count > 1:
        raise DataError(f'{file.path}: has {count} columns called "{name}"; rename one, or set {key}')
    kind = schema.field(name).type
    if not _fits(kind, ids=ids):
        wanted = "strings or integers" if ids else "strings"
        raise DataError(f'{file.path}: the column "{name}" holds {kind}, expected {wanted} (set {key})')


def _fits(kind: Any, *, ids: bool) -> bool:
    types = import_pyarrow("read columns").types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = [
        types.is_null,
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
    ]
    return any(test(kind) for test in tests) or (ids and bool(types.is_integer(kind)))


def _bytes(scalar: Any) -> bytes:
    """The bytes of a value; none for null."""
    scalar = getattr(scalar, "value", scalar) if hasattr(scalar, "dictionary") else scalar
    if scalar is None or not scalar.is_valid:
        return b""
    data: bytes = scalar.as_buffer().to_pybytes()
    return data


def _id(scalar: Any, file: SourceFile, row: int, options: ReadOptions) -> str:
    value = scalar.as_py() if scalar.is_valid else None
    if value is None:
        raise DataError(
            f'{file.path}:{row}: "{options.id_field}" is null, expected a string or an integer (set id_field)'
        )
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
