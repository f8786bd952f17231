"""The flight recorder: the last steps of a rank in a small file that survives its death.

`flight/rank-00003.jsonl` holds a header, a line about the end, and a ring of lines for the last steps. All
lines have a fixed place and are padded with spaces, so the file is JSON lines at any instant, and never
grows. A line is written by one `pwrite` into the page cache: that outlives a killed process, lies within
one page so that a kill cannot tear it, costs microseconds a step, and fails with an error where the disk is
full, whereas a write to a mapped file would end the process. What is lost when a whole host dies are the
seconds that its kernel had not written yet.

A start moves what the one before left to `flight/earlier/0001/` and so on, so that the death that began a row
of restarts is still there after them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...core.log import get_logger

__all__ = [
    "FOLDER",
    "KEPT_STEPS",
    "Flight",
    "FlightRecorder",
    "describe_flight",
    "flight_path",
    "put_aside",
    "read_earlier",
    "read_flight",
]

log = get_logger(__name__)
FOLDER = "flight"
KEPT_STEPS = 200
_EARLIER, _KEPT_STARTS = "earlier", 10
_LINE_BYTES, _ENDING_BYTES = 512, 2048
# A phase in a step's line, and the text of an error, are cut to these many characters.
_LONGEST_TEXT, _LONGEST_REASON = 60, 400


def flight_path(folder: Path, rank: int) -> Path:
    """Where a rank of the run in `folder` keeps its recorder."""
    return folder / FOLDER / f"rank-{rank:05d}.jsonl"


def put_aside(folder: Path) -> None:
    """Move what the start before left out of the way of this one; called on one rank before any records.

    Where the disk refuses, that is said, and what cannot be moved is overwritten.

    Args:
        folder: the run's.
    """
    place = folder / FOLDER
    try:
        left = sorted(place.glob("rank-*"))
        if not left:
            return
        starts = _starts(place)
        aside = place / _EARLIER / f"{(starts[-1] if starts else 0) + 1:04d}"
        aside.mkdir(parents=True)
        for path in left:
            path.replace(aside / path.name)
        for number in starts[: max(0, len(starts) + 1 - _KEPT_STARTS)]:
            shutil.rmtree(place / _EARLIER / f"{number:04d}", ignore_errors=True)
    except OSError as error:
        log.warning("%s: recorders of the start before are not kept: %s", place, error.strerror or error)


def _starts(place: Path) -> list[int]:
    """Numbers of earlier starts, oldest first; a clock may jump, so they are no times."""
    return sorted(int(path.name) for path in (place / _EARLIER).glob("*") if path.name.isdecimal())


def _plain(value: Any) -> Any:
    """JSON has no word for infinite numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _encode(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, default=str, ensure_ascii=False).encode("utf-8", "replace")


def _line(values: Mapping[str, Any], size: int) -> bytes:
    """One JSON line of exactly so many bytes; what does not fit is left out from the end."""
    kept = {name: _plain(value) for name, value in values.items()}
    while True:
        text = _encode(kept)
        if len(text) < size:
            return text.ljust(size - 1) + b"\n"
        kept.popitem()


class FlightRecorder:
    """Writes what a rank does; where the disk refuses, it says so once and records no more.

    Args:
        path: the file; one that is there is overwritten.
        header: what to say about the run: versions, rank, host.
        clock: wall-clock time in seconds.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock, self._file = path, clock, -1
        self._slot, self._values = -1, dict[str, Any]()
        told = _encode({"kind": "header", **header})
        self._header_bytes = (len(told) // _LINE_BYTES + 1) * _LINE_BYTES
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            empty = _line({}, _ENDING_BYTES) + _line({}, _LINE_BYTES) * KEPT_STEPS
            self._put(told.ljust(self._header_bytes - 1) + b"\n" + empty, 0)
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        log.warning("%s: nothing is recorded there any more: %s", self._path, error.strerror or error)
        self.close()

    def _put(self, data: bytes, place: int) -> None:
        if self._file < 0:
            return
        try:
            os.pwrite(self._file, data, place)
        except OSError as error:
            self._refused(error)

    def begin(self, step: int, phase: str) -> None:
        """A new line, in the place of the oldest."""
        self._slot = (self._slot + 1) % KEPT_STEPS
        self._values = {"kind": "step", "step": step}
        self.note(phase=phase)

    def note(self, **values: Any) -> None:
        """Add to the line of the step, or replace what it says."""
        if self._slot < 0:
            return
        self._values |= values
        self._values["phase"] = str(self._values["phase"])[:_LONGEST_TEXT]
        self._values["time"] = self._clock()
        before = self._header_bytes + _ENDING_BYTES
        self._put(_line(self._values, _LINE_BYTES), before + self._slot * _LINE_BYTES)

    def finish(self, reason: str, step: int, phase: str, how: str = "error") -> None:
        """Say why the rank ended, and where.

        Args:
            reason: in words.
            step: that it was in.
            phase: that it was in.
            how: `done`, `stopped` by a signal, `lost` because of another rank, `error` of its own.
        """
        place = {"step": step, "phase": phase[:_LONGEST_TEXT], "time": self._clock()}
        ending = {"kind": "ending", "how": how, **place}
        self._put(_line(ending | {"reason": reason[:_LONGEST_REASON]}, _ENDING_BYTES), self._header_bytes)

    def close(self) -> None:
        """Leave the file as it is."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
        self._file = -1


@dataclass(frozen=True)
class Flight:
    """What one rank left.

    Attributes:
        path: its file.
        header: versions, rank, host, start.
        steps: the last ones, by step.
        ending: why the rank ended, empty if it had no time to say so, or goes on.
    """

    path: Path
    header: dict[str, Any]
    steps: list[dict[str, Any]]
    ending: dict[str, Any] = field(default_factory=dict)


# What each kind of line has at least, and of which type.
_NUMBER = int | float
_NEEDED: Mapping[str, Mapping[str, Any]] = {
    "header": {"rank": int},
    "step": {"step": int, "phase": str, "time": _NUMBER},
    "ending": {"reason": str, "time": _NUMBER},
}


def _is_line(values: Any) -> bool:
    needed = _NEEDED.get(values["kind"]) if isinstance(values, dict) and "kind" in values else None
    return needed is not None and all(isinstance(values.get(name), kind) for name, kind in needed.items())


def _read(path: Path) -> Flight:
    found: dict[str, list[dict[str, Any]]] = {"header": [], "step": [], "ending": []}
    for line in path.read_bytes().splitlines():
        # A host that lost power may leave lines that were never written, or any bytes.
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            values = json.loads(line)
            if _is_line(values):
                found[values["kind"]].append(values)
    header, ending = ([*found[kind], {}][0] for kind in ("header", "ending"))
    return Flight(path, header, sorted(found["step"], key=lambda values: values["step"]), ending)


def read_flight(folder: Path) -> list[Flight]:
    """The recorders of a run's ranks.

    Args:
        folder: the run's.

    Returns:
        One for each rank of the last start, by rank; empty where there is none.
    """
    return [_read(path) for path in sorted((folder / FOLDER).glob("rank-*.jsonl"))]


def read_earlier(folder: Path) -> list[list[Flight]]:
    """The recorders of earlier starts, the latest start first; each as for `read_flight`."""
    place = folder / FOLDER
    starts = [place / _EARLIER / f"{number:04d}" for number in reversed(_starts(place))]
    return [[_read(path) for path in sorted(start.glob("rank-*.jsonl"))] for start in starts]


def last_step(path: Path) -> dict[str, Any] | None:
    """The last step that a recorder holds; None where it cannot be read or has none."""
    try:
        steps = _read(path).steps
    except OSError:
        return None
    return steps[-1] if steps else None


def _clock_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _describe(flight: Flight) -> str:
    who = f"rank {flight.header.get('rank', '?')} on {flight.header.get('host', '?')}"
    if flight.steps:
        last = flight.steps[-1]
        loss = f", loss {last['loss']:.4g}" if isinstance(last.get("loss"), float) else ""
        where = f"last step {last['step']} ({last['phase']}) at {_clock_time(last['time'])}{loss}"
    else:
        where = "no step"
    if flight.ending:
        end = f"ended at {_clock_time(flight.ending['time'])}: {flight.ending['reason']}"
    else:
        end = "did not say how it ended"
    return f"{who}: {where}; {end}"


def describe_flight(folder: Path) -> str:
    """A line for each rank of a run: where it was last, and why it ended."""
    return "\n".join(_describe(flight) for flight in read_flight(folder))
