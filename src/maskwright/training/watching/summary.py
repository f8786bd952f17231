"""What the flight recorders of a run say together: where each rank was last, and who stopped first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.files import storage_errors
from .flight import FOLDER, Flight, describe_flight, read_earlier, read_flight

__all__ = ["summarize_flight"]

# Who stopped first, where ranks end in several ways: an error of its own comes before the silence of
# those that were killed for it, and both before those that were told to stop. Who lost another was not first.
_ORDER = ("error", "", "stopped")


def summarize_flight(folder: Path) -> dict[str, Any]:
    """Put together what the ranks of a run left.

    Args:
        folder: the run's.

    Returns:
        `processes`; `ranks`, each with `rank`, `host`, `pid`, `started`, `step`, `phase`, `time` (UTC seconds
        of its host), `loss`, `how` it ended (`done`, `stopped`, `lost`, `error`, or "" where it did not say)
        and the `reason`; `stopped_first`, a rank or None; `missing` and `damaged`, ranks of which nothing can
        be told; `versions`, and `other_versions` by rank where they differ; `lines`, the same for people; and
        `earlier` starts, the latest first, each with `started`, `processes`, its last `step`,
        `stopped_first`, and `how` and why (`reason`) that rank ended.

    Raises:
        DataError: there are no recorders, or not one can be read.
        StorageError: the storage refused.
    """
    with storage_errors(folder / FOLDER):
        flights = read_flight(folder)
        lines = describe_flight(folder).splitlines()
        earlier = [_start(found) for found in read_earlier(folder)]
    if not flights:
        raise DataError(
            f"{folder / FOLDER}: holds no flight recorder (rank-*.jsonl); a pretraining run has "
            "one, so check the path"
        )
    whole = [flight for flight in flights if flight.header]
    damaged = [_number(flight.path) for flight in flights if not flight.header]
    if not whole:
        raise DataError(
            f"{flights[0].path}: has no readable header, nor has any other recorder; its host perhaps lost "
            "power before it was written, so look at logs/ in place of it"
        )
    ranks = [_rank(flight) for flight in whole]
    processes = max(flight.header.get("processes", 1) for flight in whole)
    versions = whole[0].header.get("versions", {})
    return {
        "processes": processes,
        "stopped_first": _first(ranks),
        "missing": sorted(set(range(processes)) - {_number(flight.path) for flight in flights}),
        "damaged": damaged,
        "versions": versions,
        "other_versions": {
            flight.header["rank"]: flight.header.get("versions", {})
            for flight in whole
            if flight.header.get("versions", {}) != versions
        },
        "ranks": ranks,
        "lines": [line for line, flight in zip(lines, flights, strict=True) if flight.header],
        "earlier": [start for start in earlier if start is not None],
    }


def _start(flights: Sequence[Flight]) -> dict[str, Any] | None:
    """An earlier start in short; None where nothing of it can be read."""
    ranks = [_rank(flight) for flight in flights if flight.header]
    if not ranks:
        return None
    first = _first(ranks)
    # Where none ended by itself, as when a machine is gone, the first line says most.
    told = next((rank for rank in ranks if rank["rank"] == first), ranks[0])
    return {
        "started": told["started"],
        "processes": max(flight.header.get("processes", 1) for flight in flights if flight.header),
        "step": max((rank["step"] for rank in ranks if rank["step"] is not None), default=None),
        "stopped_first": first,
        "how": told["how"],
        "reason": told["reason"],
    }


def _number(path: Path) -> int:
    text = path.stem.removeprefix("rank-")
    return int(text) if text.isdecimal() else -1


def _rank(flight: Flight) -> dict[str, Any]:
    header, last, ending = flight.header, flight.steps[-1] if flight.steps else {}, flight.ending
    return {
        "rank": header["rank"],
        **{name: header.get(name) for name in ("host", "pid", "started")},
        "step": last.get("step"),
        "phase": last.get("phase"),
        "time": last.get("time"),
        "loss": last.get("loss"),
        "how": ending.get("how", "error") if ending else "",
        "reason": ending.get("reason"),
        "ended": ending.get("time"),
    }


def _first(ranks: Sequence[Mapping[str, Any]]) -> int | None:
    """The rank with which the end began; None where all are done, none has ended, or it is not known."""
    left = [rank for rank in ranks if rank["how"] in _ORDER]
    if not left or all(rank["how"] == "" for rank in ranks):
        return None

    def order(rank: Mapping[str, Any]) -> tuple[int, float]:
        return _ORDER.index(rank["how"]), rank["ended"] or rank["time"] or 0.0

    found: int = min(left, key=order)["rank"]
    return found
