"""What runs are doing now, read from their folders while others write them.

Only `metrics.jsonl`, `config.yaml` and the names of the closing files are looked at, so a run on
another machine is watched through a shared file system. The metrics are read on from where the last
look ended. Cost: one look at the file a run, and a few thousand points of its curve in memory.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.config import read_yaml
from ..core.errors import DataError, UserError

__all__ = ["Monitor", "RunReader", "find_runs", "monitor_runs"]

METRICS = "metrics.jsonl"
# The file that each kind of run writes last.
CLOSING = ("summary.json", "evaluation.json")
MAX_POINTS = 4096
MAX_EVENTS = 50
_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 256
# A run is stale when it has been silent for so many times its usual pause, and at least so long.
STALE_PAUSES, STALE_SECONDS = 10.0, 120.0
# Before the first step data is indexed and the model compiled.
STALE_START_SECONDS = 1800.0
_BAD_EVENTS = ("WARNING", "ERROR", "skipped", "not finite", "no checkpoint")
_FIELDS = (
    *("loss", "accuracy", "lr", "grad_norm", "tokens_per_second", "real_tokens_per_second", "padding_share"),
    *("data_wait_share", "step_seconds", "tokens_seen", "mask_rate", "peak_share", "memory_bytes"),
    *("memory_peak_bytes", "device_memory_bytes", "device_memory_peak_bytes"),
)


class RunReader:
    """Follows one run.

    Args:
        folder: the run's folder; it may not be there yet.
        name: how to call it.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        self.folder, self.name = folder, name or folder.name or str(folder)
        self._forget()

    def _forget(self) -> None:
        self._offset, self._head, self._torn = 0, b"", b""
        self._steps: int | None = None
        self._looked_for_steps = False
        self.losses: list[tuple[int, float]] = []
        self.validations: list[tuple[int, float]] = []
        self.events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self.train: dict[str, Any] = {}
        self.evaluation: dict[str, Any] = {}
        self._pause_seconds = 0.0
        self._changed = 0.0

    def poll(self) -> None:
        """Read what was written since the last look; a file that was replaced is read from its start."""
        path = self.folder / METRICS
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if file.read(len(self._head)) != self._head or size < self._offset:
                    self._forget()
                file.seek(self._offset)
                while chunk := file.read(_CHUNK_BYTES):
                    self._offset += len(chunk)
                    self._take(chunk)
                self._changed = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            self._forget()
        except OSError:
            return  # the storage may answer next time
        if not self._looked_for_steps and (self._offset or (self.folder / "config.yaml").exists()):
            self._steps, self._looked_for_steps = _configured_steps(self.folder), True

    def _take(self, chunk: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head = (self._head + chunk)[:_HEAD_BYTES]
        *lines, self._torn = (self._torn + chunk).split(b"\n")
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a crash may have torn it
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                self._add(record)

    def _add(self, record: dict[str, Any]) -> None:
        kind, step = record.get("kind"), record["step"]
        if kind == "train":
            before = self.train.get("step", 0)
            self._pause_seconds = max(0, step - before) * (_number(record.get("step_seconds")) or 0.0)
            self.train = record
            _append(self.losses, step, _number(record.get("loss")))
        elif kind == "evaluation":
            self.evaluation = record
            _append(self.validations, step, _number(record.get("loss")))
        elif kind == "event":
            message = str(record.get("message", ""))
            bad = any(mark in message for mark in _BAD_EVENTS)
            self.events.append({"step": step, "message": message, "warning": bad})

    def snapshot(self, now: float | None = None) -> dict[str, Any]:
        """How the run stands, in plain values.

        Args:
            now: the time, in seconds since 1970; None takes the clock.

        Returns:
            `run`, `folder`, `state` (waiting, running, stale, stopped, finished), `age_seconds` since the
            last record, `step`, `total_steps`, `share_done`, `seconds`, `seconds_left`, the newest
            training numbers under their own names, `validation` (the newest), `losses` and `validations`
            (lists of step and loss) and `events`. What is not known is None or missing.
        """
        age = max(0.0, (time.time() if now is None else now) - self._changed) if self._changed else None
        step = max(self.train.get("step", 0), self.evaluation.get("step", 0))
        total = self._total_steps()
        share = _number(self.train.get("share_done"))
        if share is None and total:
            share = min(1.0, step / total)
        state = self._state(age)
        if state == "finished":
            share = 1.0
        seconds = _number(self.train.get("seconds"))
        return {
            "run": self.name,
            "folder": str(self.folder),
            "state": state,
            "age_seconds": age,
            "step": step,
            "total_steps": total,
            "share_done": share,
            "seconds": seconds,
            "seconds_left": self._seconds_left(step, total, share, seconds),
            **{name: value for name in _FIELDS if (value := _number(self.train.get(name))) is not None},
            "validation": {
                name: value
                for name in ("step", "loss", "accuracy", "perplexity")
                if (value := _number(self.evaluation.get(name))) is not None
            },
            "losses": self.losses,
            "validations": self.validations,
            "events": list(self.events),
        }

    def _total_steps(self) -> int | None:
        told = self.train.get("total_steps")
        return told if isinstance(told, int) else self._steps

    def _seconds_left(
        self, step: int, total: int | None, share: float | None, seconds: float | None
    ) -> float | None:
        """By the share of a budget where the run has one, else by its newest speed."""
        pace = _number(self.train.get("step_seconds"))
        if "share_done" in self.train and share and seconds is not None:
            return seconds * (1 - share) / share
        return None if total is None or pace is None else max(0, total - step) * pace

    def _state(self, age: float | None) -> str:
        if any((self.folder / name).exists() for name in CLOSING):
            return "finished"
        if age is None:
            return "waiting"
        if self.events:
            last = self.events[-1]
            if last["message"].startswith("stopped by") and last["step"] >= self.train.get("step", 0):
                return "stopped"
        if not self.train:
            return "stale" if age > STALE_START_SECONDS else "running"
        return "stale" if age > max(STALE_SECONDS, STALE_PAUSES * self._pause_seconds) else "running"


def _append(points: list[tuple[int, float]], step: int, value: float | None) -> None:
    """Add a point; steps that are done again after a resume replace the earlier ones."""
    while points and points[-1][0] >= step:
        points.pop()
    if value is not None:
        points.append((step, value))
    if len(points) > MAX_POINTS:
        del points[::2]


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def _configured_steps(folder: Path) -> int | None:
    try:
        steps = read_yaml(folder / "config.yaml").get("steps")
    except UserError:
        return None
    return steps if isinstance(steps, int) else None


def find_runs(path: Path) -> list[tuple[str, Path]]:
    """The runs at a place: the folder itself, or those up to two levels below it.

    Args:
        path: a run's folder, a folder of runs, or where a run will be.

    Returns:
        Names and folders.

    Raises:
        DataError: it is a file, or holds prepared data.
    """
    if path.is_file():
        raise DataError(f"{path}: is a file, expected the folder of a run, or a folder of runs")
    if (path / "manifest.json").exists():
        raise DataError(f"{path}: holds prepared data, not a run; look at it with maskwright inspect {path}")
    if not (path / METRICS).exists():
        found = {file.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/{METRICS}")}
        if found:
            return [(folder.relative_to(path).as_posix(), folder) for folder in sorted(found)]
    return [(path.resolve().name, path)]


class Monitor:
    """Follows several runs, and those that begin later in the same folders.

    Args:
        paths: folders of runs, or folders that hold them.

    Raises:
        DataError: a path is a file, or holds prepared data.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._readers: dict[Path, RunReader] = {}
        self._find()

    def _find(self) -> None:
        found = {folder: name for path in self.paths for name, folder in find_runs(path)}
        self._readers = {
            folder: self._readers.get(folder) or RunReader(folder, name) for folder, name in found.items()
        }

    def look(self, now: float | None = None) -> list[dict[str, Any]]:
        """Snapshots of all runs, those that are going on first."""
        self._find()
        for reader in self._readers.values():
            reader.poll()
        order = ("running", "stale", "waiting", "stopped", "finished")
        return sorted(
            (reader.snapshot(now) for reader in self._readers.values()),
            key=lambda run: order.index(run["state"]),
        )


def monitor_runs(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """How runs stand now; see `RunReader.snapshot` for the keys."""
    return Monitor(paths).look()
