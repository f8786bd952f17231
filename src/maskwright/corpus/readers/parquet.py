"""Parquet: a table in columns, of which only the text and the id are read.

Row groups are read one after the other, in batches made small enough by what the file says about
its own sizes, so a file of one huge row group does not fill the memory. A file may be read in spans
of row groups; ids are numbers of rows in the whole file, which its footer tells. Memory: some
megabytes of a batch, one page of each column, and one document.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile
from .binary import open_binary
from .columns import column_names, damage_as_errors, import_pyarrow, row_documents
from .reader import ReadOptions

__all__ = ["read_parquet", "row_group_bytes"]

_BATCH_BYTES = 1 << 22
_MAX_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20


def read_parquet(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read a Parquet file, or a span of its row groups.

    Args:
        file: local or remote.
        options: `text_field`, `id_field` and `encoding_errors` apply.
        audit: told about bytes that are not UTF-8 (`invalid_utf8`) and a file without rows (`empty_file`).

    Yields:
        Documents. The id is the source's name with the id column, or with the label and the number of
        the row in the file, from 1. A null text becomes an empty document.

    Raises:
        DataError: the file cannot be read, is damaged or cut off, or lacks a column that can be used.
        MissingDependencyError: `pyarrow` is not installed.
    """
    with _open(file) as table:
        columns = column_names(table.schema_arrow, file, options)
        groups = table.num_row_groups
        first, stop = (0, groups) if file.span is None else (file.span.start, min(file.span.stop, groups))
        if not table.metadata.num_rows and first == 0:
            audit.count_unread(options.source, str(file.path), Drop("empty_file"))
        row = 1 + sum(table.metadata.row_group(group).num_rows for group in range(first))
        for group in range(first, stop):
            size = _batch_rows(table.metadata.row_group(group))
            for batch in table.iter_batches(size, [group], columns, use_threads=False):
                yield from row_documents(batch, row, file, options, audit)
                row += batch.num_rows


def row_group_bytes(file: SourceFile) -> list[int]:
    """Sizes of a file's row groups, for cutting it into spans.

    Args:
        file: local or remote; only its footer is read.

    Returns:
        For each row group, the bytes of all its columns before compression.

    Raises:
        DataError, MissingDependencyError: as for `read_parquet`.
    """
    with _open(file) as table:
        return [table.metadata.row_group(group).total_byte_size for group in range(table.num_row_groups)]


@contextlib.contextmanager
def _open(file: SourceFile) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile` whose failures, also those while reading, are `DataError`."""
    pyarrow = import_pyarrow("read Parquet files")
    with open_binary(file) as raw:
        # A local file is read without coming back to Python for every page.
        place = str(file.path) if isinstance(file.path, Path) else raw
        with (
            damage_as_errors(file, "Parquet"),
            pyarrow.parquet.ParquetFile(
                place, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
            ) as table,
        ):
            yield table


def _batch_rows(group: Any) -> int:
    """Rows for each batch of a row group, so that a batch of average rows has `_BATCH_BYTES`.

    By all columns together: `pyarrow` aborts the process over some damaged footers when it is asked
    about one column.
    """
    rows_in_batch: int = _BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1)
    return max(1, min(_MAX_BATCH_ROWS, rows_in_batch))
