"""Heartbeats: every rank tells the others where it is, through the store that the run was started with.

A thread of each rank writes one short text about itself and reads those of the others, about once a second;
training only leaves its place in a field and never waits. No clock is compared with another machine's: a
rank is as old as the time, on the reader's own monotonic clock, since its number of beats last changed.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

__all__ = ["Beat", "Beats", "Heard", "Place", "Store"]

# With more ranks than these, each reads the others more rarely, so that the store has as much to do.
_READ_EVERY_TIME = 64


class Store(Protocol):
    """What is used of torch's store; a seam because tests have one without a network."""

    def set(self, key: str, value: str) -> None:
        """Write a text."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""

    def multi_get(self, keys: list[str]) -> Sequence[bytes]:
        """Texts that are there."""


@dataclass(frozen=True)
class Place:
    """Where the main thread of a rank is.

    Attributes:
        moves: how often it went on to something else; ranks make the same moves, so this is comparable.
        step: number of the step.
        phase: what it does.
    """

    moves: int = 0
    step: int = 0
    phase: str = "starting"

    def __str__(self) -> str:
        return f"{self.step} ({self.phase})"


@dataclass(frozen=True)
class Beat:
    """What a rank tells of itself.

    Attributes:
        number: of beats so far.
        place: where its main thread is.
        ending: how it ends, if it does: `done`, `stopped` by a signal, `lost` because of another rank,
            `error` of its own.
        reason: why, in words.
    """

    number: int = 0
    place: Place = field(default_factory=Place)
    ending: str = ""
    reason: str = ""

    def to_text(self) -> str:
        """As it goes through the store."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: bytes | str) -> Beat:
        """Back from `to_text`."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "place": Place(**values["place"])})


@dataclass
class Heard:
    """What this process knows of a rank; times are its own monotonic clock's, in seconds.

    Attributes:
        beat: the last that it told.
        heard_at: when its number of beats last changed.
        moved_at: when its place last changed.
    """

    beat: Beat
    heard_at: float
    moved_at: float


class Beats:
    """Tells where this rank is, and knows where the others are.

    Args:
        store: where the ranks leave their texts; None for a rank that is alone.
        rank: of this process.
        size: number of ranks.
        interval: seconds between two beats.
        clock: monotonic, in seconds.
        name: of this start; a store that outlives a start holds the beats of the one before.
        recorded: where a rank was last by its flight recorder, which may know of more than its last beat.
    """

    def __init__(
        self,
        store: Store | None,
        rank: int,
        size: int,
        interval: float,
        clock: Callable[[], float],
        name: str = "",
        recorded: Callable[[int], Place | None] = lambda rank: None,
    ) -> None:
        self.rank, self.size, self.interval, self._clock = rank, size, interval, clock
        self._name, self._recorded = name, recorded
        self.read_interval = interval * max(1.0, size / _READ_EVERY_TIME)
        now = clock()
        self.heard = [Heard(Beat(), now, now) for _ in range(size)]
        self.answered_at, self._read_at = now, -float("inf")
        self._store, self._unheard = store, set(range(size)) - {rank}
        # Each is written by one thread only, so no lock is needed.
        self._place, self._number, self._ending = Place(), 0, ("", "")
        self._stop, self._hurry, self._sent = threading.Event(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def place(self) -> Place:
        """Where the main thread of this rank is."""
        return self._place

    def last_place(self, rank: int) -> Place:
        """Where a rank was last, as far as anybody knows."""
        if rank == self.rank:
            return self._place
        told, recorded = self.heard[rank].beat.place, self._recorded(rank)
        return recorded if recorded is not None and recorded.step > told.step else told

    def move(self, step: int, phase: str) -> None:
        """The main thread goes on to something else; costs no more than writing that down."""
        self._place = Place(self._place.moves + 1, step, phase)
        self.heard[self.rank].moved_at = self._clock()

    def end(self, ending: str, reason: str = "") -> None:
        """Tell the others that this rank ends, and how; waits a second at most."""
        self._ending = (ending, reason[:200])
        self._sent.clear()
        self._hurry.set()
        if self._thread is not None:
            self._sent.wait(1.0)

    def forgive(self, seconds: float) -> None:
        """This process was stopped for so long; nobody else is to blame for what it did not hear."""
        self.answered_at += seconds
        for one in self.heard:
            one.heard_at += seconds
            one.moved_at += seconds

    def exchange(self) -> None:
        """One beat: write about this rank, and read about the others when it is time.

        Raises:
            RuntimeError: the store does not answer.
        """
        if self._store is None:
            return
        self._number += 1
        here = Beat(self._number, self._place, *self._ending)
        self._store.set(self._key(self.rank), here.to_text())
        if self._clock() - self._read_at >= self.read_interval or self.size <= _READ_EVERY_TIME:
            self._read(self._store)

    def _read(self, store: Store) -> None:
        # Reading what was never written would wait for it.
        self._unheard = {rank for rank in self._unheard if not store.check([self._key(rank)])}
        ranks = [rank for rank in range(self.size) if rank != self.rank and rank not in self._unheard]
        texts = store.multi_get([self._key(rank) for rank in ranks]) if ranks else []
        now = self._clock()
        for rank, text in zip(ranks, texts, strict=True):
            self._hear(self.heard[rank], Beat.from_text(text), now)
        self.heard[self.rank].heard_at = self.answered_at = self._read_at = now

    @staticmethod
    def _hear(known: Heard, beat: Beat, now: float) -> None:
        if beat.number != known.beat.number:
            known.heard_at = now
        if beat.place.moves != known.beat.place.moves:
            known.moved_at = now
        known.beat = beat

    def _key(self, rank: int) -> str:
        return f"watch-{self._name}-{rank}"

    def start(self) -> None:
        """Beat from a thread of its own until `stop`."""
        if self._store is not None:
            self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._hurry.clear()
            # A store that does not answer is told by `answered_at`; it may come back.
            with contextlib.suppress(RuntimeError):
                self.exchange()
            if not self._hurry.is_set():
                self._sent.set()
                self._hurry.wait(self.interval)

    def stop(self) -> None:
        """No more beats; a thread that waits for a store that does not answer is left behind."""
        self._stop.set()
        self._hurry.set()
        if self._thread is not None:
            self._thread.join(2.0)
