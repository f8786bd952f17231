"""What watches a run: the metrics file, TensorBoard, and lines for people."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import MissingDependencyError
from ..core.files import storage_errors

__all__ = ["Hook", "JsonLines", "LogLines", "Record", "TensorBoard", "standard_hooks"]

log = logging.getLogger(__name__)
Record = dict[str, Any]


class Hook(Protocol):
    """Something that is told what happens; a seam for trackers that users bring."""

    def record(self, record: Record) -> None:
        """Take one line: `kind` is train, evaluation or event, `step` its step."""

    def close(self) -> None:
        """The run ends, one way or another."""


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


class TensorBoard:
    """Writes numbers to TensorBoard event files; gives up with a warning when the storage refuses.

    Args:
        folder: the `events` folder of the run.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError("tensorboard", "train", "write TensorBoard events") from error
        with storage_errors(folder):
            self._writer = SummaryWriter(str(folder))
        self._works = True

    def record(self, record: Record) -> None:
        """Write each number under `kind/name`."""
        with self._giving_up():
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def close(self) -> None:
        """Flush the file."""
        with self._giving_up():
            self._writer.close()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Its writing thread ends at the first refusal, and every later call would raise it again."""
        try:
            yield
        except OSError as error:
            if self._works:
                log.warning("TensorBoard events: %s; no more are written", error.strerror or error)
            self._works = False


class LogLines:
    """One line a record for people, with the time left.

    Args:
        total_steps: steps of the run.
        every_seconds: shortest time between two training lines.
    """

    def __init__(self, total_steps: int, every_seconds: float = 5.0) -> None:
        self.total_steps, self.every_seconds = total_steps, every_seconds
        self._last = -math.inf

    def record(self, record: Record) -> None:
        """Log an event or evaluation always, a training step when it is time."""
        kind, step = record["kind"], record["step"]
        if kind == "event":
            log.info("step %d: %s", step, record["message"])
        elif kind == "evaluation":
            log.info("step %d: validation loss %.4f, accuracy %.3f", step, record["loss"], record["accuracy"])
        elif record["seconds"] - self._last >= self.every_seconds or step == self.total_steps:
            self._last = record["seconds"]
            left = (self.total_steps - step) * record["step_seconds"]
            log.info(
                "step %d/%d  loss %.4f  lr %.2e  grad norm %.2f  %s tokens/s  %s left",
                step,
                self.total_steps,
                record["loss"],
                record["lr"],
                record["grad_norm"],
                f"{record['tokens_per_second']:,.0f}",
                _duration(left),
            )

    def close(self) -> None:
        """Nothing is held."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def standard_hooks(folder: Path, total_steps: int, further: Sequence[Hook]) -> list[Hook]:
    """What every run has: `metrics.jsonl`, TensorBoard events and log lines, then the caller's own."""
    return [
        JsonLines(folder / "metrics.jsonl"),
        TensorBoard(folder / "events"),
        LogLines(total_steps),
        *further,
    ]
