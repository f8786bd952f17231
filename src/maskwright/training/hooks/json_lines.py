"""The metrics file of a run, which every other view of it reads."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from ...core.files import storage_errors
from ...core.log import get_logger
from .hook import Record

__all__ = ["JsonLines"]

log = get_logger(__name__)


class JsonLines:
    """Appends each record to `metrics.jsonl` at once, so that a crash loses none.

    While the storage refuses, lines wait in memory: a full disk does not end a run.

    Args:
        path: the file; lines of an earlier start stay.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        with storage_errors(path):
            _end_torn_line(path)
            self._file = path.open("ab", buffering=0)
        self._path = path
        self._waiting = bytearray()

    def record(self, record: Record) -> None:
        """Write one line; numbers that JSON does not know become null."""
        clean = {name: None if _strange(value) else value for name, value in record.items()}
        self._waiting += json.dumps(clean, ensure_ascii=False).encode() + b"\n"
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as error:
            log.warning("%s: %s; its lines wait until there is room", self._path, error.strerror or error)

    def close(self) -> None:
        """Flush to the device."""
        if self._waiting:
            log.warning("%s: the last %d bytes could not be written", self._path, len(self._waiting))
        with contextlib.suppress(OSError), self._file:
            os.fsync(self._file.fileno())


def _end_torn_line(path: Path) -> None:
    """A crash may have cut the last line; close it, so that the next one is whole."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _strange(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
