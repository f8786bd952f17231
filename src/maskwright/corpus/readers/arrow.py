"""Arrow: IPC files and streams, and the folders that the `datasets` library saves.

A folder of `save_to_disk` is its `data-*.arrow` files, in the order of their names, which is the
order of its `state.json`. That file also tells which of the folder's Arrow files are caches and not
part of the dataset, and whether a row selection lies over them. The bookkeeping files are read with
the others, give no documents, and tell of files that are missing. A folder of several splits is all of
its splits.

Local files are mapped into memory. Memory: one batch if it is compressed, and one document.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.log import get_logger
from ..audit import Audit
from ..document import Document, Drop
from ..sources import SourceFile
from .binary import open_binary
from .columns import column_names, damage_as_errors, import_pyarrow, row_documents
from .reader import ReadOptions

__all__ = ["BOOKKEEPING_FILES", "read_arrow"]

_STATE = "state.json"
BOOKKEEPING_FILES = frozenset({_STATE, "dataset_info.json", "dataset_dict.json", "dataset_infos.json"})

_FILE_MARK = b"ARROW1"
_OLD_FEATHER_MARK = b"FEA1"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

_log = get_logger(__name__)


def read_arrow(file: SourceFile, options: ReadOptions, audit: Audit) -> Iterator[Document]:
    """Read an Arrow file or stream, or a file of a dataset folder.

    Args:
        file: local or remote. Bookkeeping files of a dataset folder and its caches give no documents.
        options: `text_field`, `id_field` and `encoding_errors` apply.
        audit: told about bytes that are not UTF-8 (`invalid_utf8`) and a file without rows (`empty_file`).

    Yields:
        Documents. The id is the source's name with the id column, or with the label and the number of
        the row in the file, from 1. A null text becomes an empty document.

    Raises:
        DataError: the file cannot be read, is damaged or cut off, or lacks a column that can be used;
            its dataset folder lacks a file, or has a row selection.
        MissingDependencyError: `pyarrow` is not installed.
    """
    if not _holds_rows(file):
        return
    row = 1
    with _open(file) as source:
        for batch in _batches(source, file, options):
            _check(batch, file, row)
            yield from row_documents(batch, row, file, options, audit)
            row += batch.num_rows
    if row == 1:
        audit.count_unread(options.source, str(file.path), Drop("empty_file"))


@contextlib.contextmanager
def _open(file: SourceFile) -> Iterator[Any]:
    """A `pyarrow.NativeFile` at its start; what fails inside the block is `DataError`."""
    pyarrow = import_pyarrow("read Arrow files")
    with open_binary(file) as raw:
        if raw.read(1) == b"":
            raise DataError(f"{file.path}: is empty, expected an Arrow file; fetch or write the file again")
        raw.seek(0)
        local = isinstance(file.path, Path)
        with (
            damage_as_errors(file, "Arrow"),
            pyarrow.memory_map(str(file.path)) if local else pyarrow.PythonFile(raw, "r") as source,
        ):
            yield source


def _batches(source: Any, file: SourceFile, options: ReadOptions) -> Iterator[Any]:
    """Record batches with the columns that are needed and no others."""
    ipc = import_pyarrow("read Arrow files").ipc
    mark = source.read(len(_FILE_MARK))
    source.seek(0)
    if mark.startswith(_OLD_FEATHER_MARK):
        raise DataError(f"{file.path}: is a Feather file of version 1; write it again as version 2")
    is_file = mark == _FILE_MARK
    make = ipc.open_file if is_file else ipc.open_stream
    schema = make(source).schema
    columns = column_names(schema, file, options)
    fields = sorted(schema.get_field_index(name) for name in columns)
    source.seek(0)
    reader = make(source, options=ipc.IpcReadOptions(use_threads=False, included_fields=fields))
    if is_file:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
        return
    yield from reader
    source.seek(max(0, source.size() - len(_END_OF_STREAM)))
    if source.read() != _END_OF_STREAM:
        _log.warning("%s: ends without a mark of its end; it may have been cut off", file.path)


def _check(batch: Any, file: SourceFile, row: int) -> None:
    """Refuse a batch whose offsets lead outside of it: mapped memory is taken as it is.

    The bytes of a text are not judged here; the source's policy does that.
    """
    pyarrow = import_pyarrow("read Arrow files")
    types = pyarrow.types
    for array in batch.columns:
        if types.is_string(array.type):
            array = array.view(pyarrow.binary())
        elif types.is_large_string(array.type):
            array = array.view(pyarrow.large_binary())
        try:
            array.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            raise DataError(
                f"{file.path}:{row}: the rows from here on are damaged ({error}); "
                "fetch or write the file again"
            ) from error


def _holds_rows(file: SourceFile) -> bool:
    """Whether a file is part of the data, and not the bookkeeping or a cache of a dataset folder."""
    name = Path(file.path).name
    if isinstance(file.path, str):  # remote: only what the name tells
        return name not in BOOKKEEPING_FILES and not name.startswith("cache-")
    listed = _listed_files(file.path.parent)
    if name == _STATE:
        for missing in [other for other in listed or () if not (file.path.parent / other).is_file()]:
            raise DataError(f"{file.path}: names {missing}, which is not there; fetch the folder again")
    if name in BOOKKEEPING_FILES:
        return False
    if listed is None or name in listed or file.named:
        return True
    _log.warning("%s: left out, because %s does not name it", file.path, _STATE)
    return False


def _listed_files(folder: Path) -> list[str] | None:
    """Names of the data files of a dataset folder; None if the folder is not one.

    Raises:
        DataError: `state.json` cannot be understood, or tells of a row selection.
    """
    path = folder / _STATE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_bytes())
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: does not list the files of a dataset ({type(error).__name__}: {error}); "
            "fetch or save the dataset again"
        ) from error
    for key in ("_indices_files", "_indices_data_files"):
        if state.get(key):
            raise DataError(
                f"{path}: a row selection ({key}) lies over the data, which is not read here; "
                "save the dataset again after flatten_indices()"
            )
    return names
