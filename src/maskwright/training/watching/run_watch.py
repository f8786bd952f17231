"""The watch of a run on many processes: it writes down, tells, listens, and ends what hangs.

Every rank has a flight recorder, a thread that beats and a thread that judges. When a rank is dead, hangs, or
the store of the run is silent for longer than the time-out, each rank that still can says so, leaves the
stacks of its threads and ends, so that nobody waits for ever and a launcher can start the run again. A step
costs a few writes of half a kilobyte each into the page cache. A process that is alone has the recorder only.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ...core.errors import Interrupted, MaskwrightError
from ...core.machine import peak_memory_bytes
from ...parallel.world import World
from ..watch import Watch, WorkerLost
from .beats import Beats, Place, Store
from .flight import FlightRecorder, flight_path, last_step, put_aside
from .stragglers import Stragglers
from .verdicts import dead_ranks, failed_ranks, find_trouble, name_all, slow_ranks, store_silence

__all__ = ["RunWatch", "Surroundings", "open_store", "speaks_of_lost_rank"]

_REMEDY = "start the run again: it goes on from its newest checkpoint"
# What may take long without anything being wrong, and so many times the time-out it may take.
_LONG_PHASES = ("starting", "resuming", "evaluating", "saving", "finishing")
_LONG_FACTOR = 10.0
# A rank that beats every second and is silent for so long after a failure is taken for its cause.
_SILENCE_SECONDS = 5.0
# Share of the time-out that others must have waited for a rank when a collective fails by its own time-out;
# beats lag a little behind it.
_NEARLY = 0.8
# How the libraries below torch tell of a lost rank; they have no error class of their own for it.
_SIGNS = (
    "gloo",
    "nccl",
    "connection closed by peer",
    "connection reset by peer",
    "connection was likely closed",
    "broken pipe",
    "timed out waiting",
    "process group",
    "processgroup",
)


@dataclass(frozen=True)
class Surroundings:
    """What a test replaces.

    Attributes:
        clock: monotonic, in seconds.
        pause: waits for some seconds.
        leave: ends the process with an exit code, at once.
        threads: whether heartbeats and the watchdog run by themselves.
    """

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    leave: Callable[[int], Any] = os._exit
    threads: bool = True


def speaks_of_lost_rank(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a collective that failed."""
    from torch.distributed import DistError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DistError):
            return True
        if isinstance(seen, RuntimeError) and any(sign in str(seen).lower() for sign in _SIGNS):
            return True
        seen = seen.__cause__
    return False


def open_store(world: World, timeout_seconds: float) -> Store | None:
    """A connection of its own to the store that the processes of the run met through.

    Args:
        world: all processes.
        timeout_seconds: how long an answer may take.

    Returns:
        None where there is one process.
    """
    if world.group is None or world.size == 1:
        return None
    from torch.distributed.distributed_c10d import _get_default_store

    # Typed by hand: the stubs know of no clone.
    met_through: Any = _get_default_store()
    store = met_through.clone()
    store.set_timeout(timedelta(seconds=timeout_seconds))
    found: Store = store
    return found


def _header(world: World, about: Mapping[str, Any]) -> dict[str, Any]:
    start = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "rank": world.rank,
        "processes": world.size,
        "host": platform.node(),
        "pid": os.getpid(),
        "started": start,
        **about,
    }


class RunWatch(Watch):
    """Looks after one rank.

    Args:
        folder: the run's; `flight/` is made in it.
        world: all processes; each makes its watch at the same place.
        timeout_seconds: how long a rank may be silent, or make others wait.
        about: for the recorder's header, such as versions.
        store: where the ranks tell each other where they are; None for the one that they met through.
        surroundings: clock and process, for tests.
    """

    def __init__(
        self,
        folder: Path,
        world: World,
        timeout_seconds: float,
        about: Mapping[str, Any],
        store: Store | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._folder, self._world, self._limit = folder, world, timeout_seconds
        self._around = surroundings or Surroundings()
        self._interval = min(1.0, timeout_seconds / 10)
        if world.is_main:
            put_aside(folder)
        found = store or open_store(world, min(10.0, timeout_seconds))
        # Nobody records before rank 0 has said this, and so has moved what was there.
        name = "" if store is not None else world.from_main(uuid.uuid4().hex if world.is_main else None)
        self._flight = FlightRecorder(flight_path(folder, world.rank), _header(world, about))
        self._beats = Beats(
            found, world.rank, world.size, self._interval, self._around.clock, name, self._recorded
        )
        self._stragglers, self._stop = Stragglers(), threading.Event()
        self._failed_at: float | None = None
        self._first_step, self._longest = 0, dict[str, float]()
        self._looked_at = self._around.clock()
        agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self._keeper = "the launcher on the first host" if agent else "rank 0"
        self._guard: threading.Thread | None = None
        if self._around.threads and found is not None:
            self._beats.start()
            self._guard = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._guard.start()

    def _recorded(self, rank: int) -> Place | None:
        """Where a rank was last, where the run's folder is on a disk that all hosts share."""
        last = last_step(flight_path(self._folder, rank))
        return None if last is None else Place(0, last["step"], last["phase"])

    def _move(self, step: int, phase: str) -> None:
        left = self._beats.place.phase
        took = self._around.clock() - self._beats.heard[self._world.rank].moved_at
        self._longest[left] = max(self._longest.get(left, 0.0), took)
        self._beats.move(step, phase)

    def begin(self, step: int) -> None:
        """A step begins."""
        self._first_step = self._first_step or step
        self._move(step, "reading data")
        self._flight.begin(step, "reading data")

    def phase(self, name: str) -> None:
        """Within a step, or between two, the run does something else now."""
        self._move(self._beats.place.step, name)
        self._flight.note(phase=name)

    def end(self, **values: float) -> None:
        """The step is done; with its loss, norm, learning rate and seconds."""
        self._move(self._beats.place.step, "done")
        self._flight.note(phase="done", **values, memory_peak_bytes=peak_memory_bytes())

    def busy(self, seconds: list[float]) -> tuple[dict[str, float], str | None]:
        """How much longer than the others the slowest rank computed; an event when that lasts."""
        return self._stragglers.look(seconds)

    def failed(self, error: BaseException) -> BaseException:
        """The error to end with: `WorkerLost` in the place of a collective that failed.

        It takes some seconds, as a rank that has died a moment ago is known by its silence alone.
        """
        self._failed_at = self._around.clock()
        told = f"{type(error).__name__}: {error}"
        ours = isinstance(error, MaskwrightError)
        if self._world.size > 1 and not ours and speaks_of_lost_rank(error):
            how = "lost"
            self._beats.end(how)
            # Behind its first sentence gloo gives advice that is none here.
            said = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
            error = WorkerLost(f"{self._who_is_lost()}; {_REMEDY} (what failed here: {said[:300]})")
            told = f"{error}; {told}"
        else:
            how = "stopped" if isinstance(error, Interrupted) else "error"
            self._beats.end(how, told)
        self._finish_flight(told, how)
        return error

    def _who_is_lost(self) -> str:
        silence = min(self._limit, max(_SILENCE_SECONDS, 5 * self._beats.read_interval))
        clock = self._around.clock
        end = clock() + silence + 3 * self._beats.read_interval
        while True:
            named = failed_ranks(self._beats) or dead_ranks(self._beats, silence)
            # Where the collective ran into the same time-out, the rank that others waited for is still there.
            named = named or slow_ranks(self._beats, clock(), _NEARLY * self._limit)
            if named:
                return name_all(named)
            told = store_silence(self._beats, clock(), silence, self._keeper)
            if told is not None:
                return told
            if clock() > end:
                break
            self._around.pause(self._interval / 2)
        return f"this rank could not reach another at step {self._beats.place}, though all of them are alive"

    def look(self) -> str | None:
        """What is wrong with the run now, or None; the watchdog asks this again and again."""
        now, before = self._around.clock(), self._looked_at
        self._looked_at = now
        if now - before > self._limit / 2:
            # This process was stopped, or its machine slept: what it did not hear is its own fault.
            self._beats.forgive(now - before)
            self._failed_at = self._failed_at and self._failed_at + now - before
        if self._failed_at is not None:
            spent = now - self._failed_at
            return f"the run could not be ended in {spent:.0f} s" if spent > 2 * self._limit else None
        return find_trouble(self._beats, now, self._limit, self._patience(), self._keeper)

    def _patience(self) -> float:
        place = self._beats.place
        slow = place.phase in _LONG_PHASES or place.step <= self._first_step
        usual = 4 * self._longest.get(place.phase, 0.0)
        return max(self._limit * (_LONG_FACTOR if slow else 1.0), usual)

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            trouble = self.look()
            if trouble is not None and not self._stop.is_set():
                self._give_up(trouble)
                return

    def _give_up(self, trouble: str) -> None:
        """End this process, whatever its main thread waits for."""
        try:
            hung = any(one.beat.place.moves > self._beats.place.moves for one in self._beats.heard)
            self._finish_flight(trouble, "error" if hung else "lost")
            path = flight_path(self._folder, self._world.rank).with_suffix(".stacks.txt")
            line = f"rank {self._world.rank} gives up: {trouble}; {_REMEDY} (stacks: {path})\n"
            os.write(2, line.encode("utf-8", "replace"))
            with path.open("w") as stacks:
                faulthandler.dump_traceback(stacks, all_threads=True)
            if hung:
                self._beats.end("error", "it hung while others waited for it")
            else:
                self._beats.end("lost", trouble)
            sys.stdout.flush()
        finally:
            self._around.leave(WorkerLost.exit_code)

    def _finish_flight(self, reason: str, how: str) -> None:
        place = self._beats.place
        self._flight.finish(reason, place.step, place.phase, how)

    def close(self) -> None:
        """The run is over.

        After a failure the watchdog goes on: leaving the other processes may hang as well.
        """
        if self._failed_at is None:
            self._stop.set()
            # Neither an interrupt nor an exit comes by `failed`.
            left = sys.exception()
            how = "done" if left is None else "stopped"
            self._beats.end(how)
            told = "the run is done" if left is None else f"{type(left).__name__}: {left}"
            self._finish_flight(told, how)
        self._beats.stop()
        if self._guard is not None and self._stop.is_set():
            self._guard.join(2.0)
        self._flight.close()
