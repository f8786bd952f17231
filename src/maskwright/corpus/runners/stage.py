"""A stage is a list of numbered tasks that may run anywhere, in any order, any number of times.

A task writes its files, then a marker that names the request it answered, its result and its
files. A task whose marker fits is not done again; so a rerun does what is missing and no more, and
because a task is a pure function of its request, the outcome is the same whoever did it and however
often it was killed. Cost: one small file a task.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from ...core.errors import DataError, MaskwrightError
from ...core.files import write_bytes
from ...core.fingerprint import fingerprint, sha256_bytes
from ...core.inventory import FileEntry
from ...core.log import get_logger
from ...core.progress import progress

__all__ = ["Runner", "Share", "ShareDone", "Stage", "TaskResult", "Work", "run_stage"]

_log = get_logger(__name__)
_SMALL_BYTES = 1 << 21


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task gives.

    Args:
        values: plain JSON values that later stages need.
        files: the files it wrote, relative to the output folder.
    """

    values: dict[str, Any]
    files: tuple[FileEntry, ...] = ()


class Work(Protocol):
    """What the tasks of one stage do. A Protocol, because a stage only has to pickle it and call it."""

    def __call__(self, number: int, /) -> TaskResult:
        """Do one task from the beginning. May be called again after having been killed."""
        ...


class Runner(Protocol):
    """Calls a function for every number somewhere. A Protocol: processes, Ray and Slurm share no code."""

    def __call__(
        self, execute: Callable[[int], None], numbers: Sequence[int], on_done: Callable[[int], None], /
    ) -> None:
        """Return when all calls returned; raise the first error of any of them."""
        ...


@dataclass(frozen=True)
class Stage:
    """Numbered tasks with their requests.

    Args:
        name: of the stage, and of its folder of markers.
        folder: the output folder of the whole run.
        request: whatever decides the outcome of every task, as JSON values.
        requests: for each task, what decides its outcome besides.
        work: does one task.
        weights: bytes of work in each task, for the progress bar.
    """

    name: str
    folder: Path
    request: Any
    requests: Sequence[Any]
    work: Work
    weights: Sequence[int] = field(default=())

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.requests)

    def result(self, number: int, *, verify: bool = False) -> dict[str, Any] | None:
        """The values of a finished task; None if it has to be done (again).

        Args:
            number: of the task.
            verify: also compare checksums, and say in the log what is damaged.
        """
        try:
            return self._read(number, content=verify)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if verify:
                reason = error if isinstance(error, DataError) else f"{self._marker(number)}: is damaged"
                _log.warning("%s; task %d of stage %s is done again", reason, number, self.name)
            return None

    def _read(self, number: int, *, content: bool) -> dict[str, Any] | None:
        marker = orjson.loads(self._marker(number).read_bytes())
        if marker.pop("checksum") != _checksum(marker):
            raise ValueError("checksum")
        if marker["request"] != self._name_request(number):
            return None
        for entry in map(FileEntry.model_validate, marker["files"]):
            known = content and bool(entry.sha256)
            entry.check(self.folder, DataError, "it is no longer what its task left", content=known)
        return dict(marker["values"])

    def execute(self, number: int) -> None:
        """Do one task and leave its marker."""
        done = self.work(number)
        marker = {
            "request": self._name_request(number),
            "values": done.values,
            "files": [entry.model_dump(exclude={"format_version"}) for entry in done.files],
        }
        marker["checksum"] = _checksum(marker)
        write_bytes(self._marker(number), orjson.dumps(marker, option=orjson.OPT_SORT_KEYS))

    def _name_request(self, number: int) -> str:
        return fingerprint([self.name, self.request, self.requests[number]])

    def _marker(self, number: int) -> Path:
        return self.folder / "work" / self.name / f"task-{number:05d}.json"


def _checksum(marker: dict[str, Any]) -> str:
    return sha256_bytes(orjson.dumps(marker, option=orjson.OPT_SORT_KEYS))


@dataclass(frozen=True, slots=True)
class Share:
    """A part of one stage that this process is to do, while others do the rest.

    Args:
        stage: name of the stage.
        task: number of this share, from 0.
        num_tasks: how many shares there are.
    """

    stage: str
    task: int
    num_tasks: int


class ShareDone(MaskwrightError):  # noqa: N818 - it is not a fault
    """This process did its share of a stage; the rest of the run is for others."""

    def __init__(self, share: Share, done: int, missing: int) -> None:
        super().__init__(f"stage {share.stage}: share {share.task} of {share.num_tasks} is done")
        self.share, self.done, self.missing = share, done, missing


@dataclass(frozen=True, slots=True)
class StageReport:
    """How a stage went: its `results` by task, `seconds`, and `executed`, the tasks done this time."""

    results: list[dict[str, Any]]
    seconds: float
    executed: int


def run_stage(stage: Stage, runner: Runner, share: Share | None = None) -> StageReport:
    """Do what is missing of a stage.

    Args:
        stage: the tasks.
        runner: who does them.
        share: do only this share, if it is of this stage; a stage before it must be finished.

    Returns:
        The results of all tasks, in order of their numbers.

    Raises:
        ShareDone: the share was of this stage, and is done.
        DataError: the share is of a later stage, and tasks of this one are missing.
        MaskwrightError: a task failed.
    """
    begun = time.monotonic()
    # What an earlier start left may have been damaged since. Each of many shares reads no more than lengths.
    missing = [n for n in range(stage.num_tasks) if stage.result(n, verify=share is None) is None]
    todo = missing
    if share is not None and share.stage == stage.name:
        todo = [number for number in missing if number % share.num_tasks == share.task]
    elif share is not None and missing:
        raise DataError(_unfinished(stage, missing, share))
    pickle.dumps(stage.work)  # what cannot travel to a worker must show with one worker, too
    if todo:
        _run(stage, todo, runner)
    if share is not None and share.stage == stage.name:
        raise ShareDone(share, len(todo), len(missing) - len(todo))
    results = [stage.result(number) for number in range(stage.num_tasks)]
    assert None not in results, f"stage {stage.name} left a task undone"
    seconds = time.monotonic() - begun
    if todo and stage.num_tasks > 1:
        _log.info("%s: %d of %d tasks in %.1f s", stage.name, len(todo), stage.num_tasks, seconds)
    return StageReport([result for result in results if result is not None], seconds, len(todo))


def _run(stage: Stage, todo: list[int], runner: Runner) -> None:
    weights = stage.weights or [1] * stage.num_tasks
    unit = "MB" if stage.weights else "tasks"
    scale = 1e-6 if stage.weights else 1.0
    total = sum(weights[number] for number in todo)
    if stage.weights and total < _SMALL_BYTES:
        runner = _run_here
    with progress(stage.name, scale * total, unit) as advance:
        runner(stage.execute, todo, lambda number: advance(scale * weights[number]))


def _run_here(execute: Callable[[int], None], numbers: Sequence[int], on_done: Callable[[int], None]) -> None:
    """Little work is done sooner than a worker is started."""
    for number in numbers:
        execute(number)
        on_done(number)


def _unfinished(stage: Stage, missing: list[int], share: Share) -> str:
    shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return (
        f"{stage.folder}: stage {stage.name} has {len(missing)} of {stage.num_tasks} tasks unfinished "
        f"({shown}), and {share.stage} comes after it; run --stage {stage.name} first"
    )
