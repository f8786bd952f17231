"""What deduplication decided, on disk: rows or lines to leave out, sorted by part.

A task of a later stage needs the decisions about its own parts only; it finds them in each sorted file
by bisection, so a look-up costs some reads a file and memory for its answer. Files are plain `.npy`.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...core.errors import DataError
from ...core.files import atomic_open, storage_errors

__all__ = ["DROPS", "LINE_DROPS", "excluded_rows", "load_array", "read_table", "save_array"]

Table = npt.NDArray[Any]

# One document to leave out, and the copy that stays; `size` counts the documents of the group.
DROPS = np.dtype(
    [("part", "<u4"), ("row", "<u4"), ("keeper_part", "<u4"), ("keeper_row", "<u4"), ("size", "<u4")]
)
# One line to leave out.
LINE_DROPS = np.dtype([("part", "<u4"), ("row", "<u4"), ("line", "<u4")])


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array as `.npy`, whole or not at all. Raises `StorageError` where the storage refuses."""
    with atomic_open(path) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def load_array(path: Path) -> npt.NDArray[Any]:
    """Map an array that `save_array` wrote into memory, for reading.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with storage_errors(path):
            return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path}: is missing; run the same command again") from None
    except (ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"{path}: is damaged ({error}); remove it and run the same command again") from error


def read_table(paths: Iterable[Path], dtype: np.dtype[Any], parts: range | None = None) -> Table:
    """Read the decisions about some parts.

    Args:
        paths: files of tables that are sorted by part.
        dtype: `DROPS` or `LINE_DROPS`.
        parts: numbers of the parts, without gaps; None takes all.

    Returns:
        A table sorted by part, row and line.

    Raises:
        DataError: a file is missing or damaged.
    """
    pieces = [np.empty(0, dtype)]
    for path in paths:
        table = load_array(path)
        first, stop = 0, len(table)
        if parts is not None:
            first, stop = (_find(table["part"], part) for part in (parts.start, parts.stop))
        pieces.append(np.array(table[first:stop]))
    found = np.concatenate(pieces)
    names = ("line", "row", "part") if "line" in (dtype.names or ()) else ("row", "part")
    return found[np.lexsort([found[name] for name in names])]


def excluded_rows(table: Table) -> dict[int, npt.NDArray[np.uint32]]:
    """The rows to leave out by part, ascending, from a table sorted by part and row."""
    parts, starts = np.unique(table["part"], return_index=True)
    rows = np.split(table["row"], starts[1:])
    return dict(zip(parts.tolist(), rows, strict=False))


def _find(column: npt.NDArray[np.uint32], part: int) -> int:
    return bisect.bisect_left(range(len(column)), part, key=lambda place: int(column[place]))
