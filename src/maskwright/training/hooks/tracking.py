"""Optional trackers (wandb, mlflow, trackio) that can neither stop nor slow a run.

A tracker works in a thread of its own and is handed records through a queue. A service that is not
reached, answers slowly or raises costs the run one warning; the tracker is then switched off, and
`metrics.jsonl` has everything still. Without a network wandb writes to the run's folder when
`WANDB_MODE=offline` is set, mlflow to a local `MLFLOW_TRACKING_URI`, and trackio always.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from ...core.config import Config
from ...core.errors import StorageError
from ...core.files import write_json
from ...core.log import get_logger
from .hook import Hook, Record
from .trackers import Mlflow, Trackio, Wandb

__all__ = ["BackgroundTracker", "Tracker", "TrackerName", "TrackingConfig", "tracking_hooks"]

log = get_logger(__name__)
TrackerName = Literal["wandb", "mlflow", "trackio"]
IDS_NAME = "tracking.json"
# Records that may wait for a slow service: days of a run that logs every few seconds.
MAX_WAITING = 10_000
CLOSE_SECONDS = 30.0


class TrackingConfig(Config):
    """Which trackers get the numbers of a run. `tracking: [wandb]` is short for `trackers: [wandb]`."""

    trackers: tuple[TrackerName, ...] = Field((), description="services that get the numbers of the run")
    project: str = Field("maskwright", min_length=1, description="project there (mlflow: experiment)")
    name: str | None = Field(None, description="name of the run there; by default that of its folder")

    @model_validator(mode="before")
    @classmethod
    def _from_names(cls, values: Any) -> Any:
        names = [values] if isinstance(values, str) else values
        return {"trackers": names} if isinstance(names, list | tuple) else values


class Tracker(Protocol):
    """A service that takes numbers; a seam because each has an interface of its own."""

    name: str

    def open(self, known_id: str | None, folder: Path, config: Mapping[str, Any]) -> str:
        """Begin a run there, or go on with the one of an earlier start; returns its id."""

    def numbers(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one record."""

    def close(self, summary: Mapping[str, Any], *, finished: bool) -> None:
        """End the run there with its last numbers."""


class BackgroundTracker:
    """Hands records to a tracker from a thread, and gives up with one warning when it fails.

    Nothing is sent, and no thread started, before the first record.

    Args:
        tracker: the service.
        folder: the run's folder; keeps the ids of the run at each service in `tracking.json`.
        config: the resolved config of the run, nested.
        total_steps: steps of the run; one that gets there has finished.
        close_seconds: how long the end of the run waits for the service.
    """

    def __init__(
        self,
        tracker: Tracker,
        folder: Path,
        config: Mapping[str, Any],
        total_steps: int,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self.tracker, self.folder, self.config = tracker, folder, config
        self.total_steps, self.close_seconds = total_steps, close_seconds
        self._waiting: queue.Queue[Record | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._works = True
        self._summary: Record = {}

    def record(self, record: Record) -> None:
        """Put a record into the queue."""
        if not self._works:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.tracker.name, daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(dict(record))
        except queue.Full:
            self._give_up(f"does not keep up ({MAX_WAITING} records wait)")

    def close(self) -> None:
        """Send what waits, then the summary; a service that does not answer is left behind."""
        if self._thread is None:
            return
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return  # told when it happened
        self._thread.join(self.close_seconds)
        if self._thread.is_alive():
            self._give_up(f"did not take the last records within {self.close_seconds:g} seconds")

    def _work(self) -> None:
        try:
            self._open()
            while (record := self._waiting.get()) is not None and self._works:
                self._take(record)
            if self._works:
                self.tracker.close(self._summary, finished=self._summary.get("step") == self.total_steps)
        except Exception as error:  # whatever a service raises must not end the run
            self._give_up(f"{type(error).__name__}: {' '.join(str(error).split())}")

    def _open(self) -> None:
        path = self.folder / IDS_NAME
        known = _known_ids(path)
        found = self.tracker.open(known.get(self.tracker.name), self.folder, self.config)
        if known.get(self.tracker.name) != found:
            _remember(path, self.tracker.name, found)

    def _take(self, record: Record) -> None:
        kind, step = record["kind"], record["step"]
        values = {
            name: float(value) for name, value in record.items() if name != "step" and _is_number(value)
        }
        if kind == "event":
            return
        shown = "validation" if kind == "evaluation" else kind
        self._summary |= {f"{shown}_{name}": value for name, value in values.items()} | {"step": step}
        self.tracker.numbers(shown, step, values)

    def _give_up(self, reason: str) -> None:
        if self._works:
            log.warning("%s: %s; it gets no more records of this run", self.tracker.name, reason)
        self._works = False


_IDS_LOCK = threading.Lock()


def _known_ids(path: Path) -> dict[str, str]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in values.items()} if isinstance(values, dict) else {}


def _remember(path: Path, name: str, found: str) -> None:
    """Keep an id for a resumed run; several trackers of a run share the file."""
    with _IDS_LOCK:
        try:
            write_json(path, {**_known_ids(path), name: found})
        except StorageError as error:
            log.warning("%s; a resumed run will begin anew at %s", error, name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TRACKERS: dict[TrackerName, Callable[[str, str], Tracker]] = {
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}


def tracking_hooks(
    config: TrackingConfig, folder: Path, run_config: Mapping[str, Any], total_steps: int
) -> list[Hook]:
    """The hooks of the trackers that a run asks for.

    Args:
        config: which, and under what names.
        folder: the run's folder.
        run_config: the resolved config of the run, nested plain values.
        total_steps: steps of the run.

    Raises:
        MissingDependencyError: the library of a tracker is not installed.
    """
    name = config.name or folder.resolve().name
    return [
        BackgroundTracker(_TRACKERS[which](config.project, name), folder, run_config, total_steps)
        for which in dict.fromkeys(config.trackers)
    ]
