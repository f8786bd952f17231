"""Checkpoints on their way to another storage, behind the training and behind the saving.

A thread of its own copies one checkpoint at a time, so that a slow storage delays no save. The newest wins:
what comes while another is on its way waits, and gives its place to what comes after it. A copy that failed
is no reason to stop; the next one is tried as ever, and at the end of the run the newest and the best are
tried once more. Whatever is on its way or waits is kept from being removed.

Ranks copy together, each its share of the files, and talk over a process group of their own. Rank 0 says
which checkpoint it is; what it was offered is published, so the others need not have heard of it yet.

Cost: one thread, and on the disk at most the checkpoint on its way and the one that waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...core.errors import StorageError, UserError
from ...core.log import get_logger
from ...parallel.world import World
from ..signals import asked_to_stop
from .copies import Copies
from .manifest import read_entries, read_manifest
from .together import all_do, tell_all

__all__ = ["HURRY_SECONDS", "Uploads"]

log = get_logger(__name__)
# Whoever sends a signal kills what has not left in time, and may want to hear the exit code.
HURRY_SECONDS = 60.0
# At the end all of it may take so many times as long as the storage may be silent.
_WHOLE_FACTOR = 8.0
# A thread that is told to give up does so when the storage takes the next bytes.
_GIVING_UP_SECONDS = 5.0
_SECONDS_BETWEEN_LINES = 30.0
_NAMED = 8


class Uploads:
    """The copies of one run. All ranks offer the same steps, and close at the same time.

    Args:
        copies: where they go.
        world: the ranks that copy together.
        path: the folder of a step's checkpoint.
        release: called on rank 0 when a checkpoint need no longer be held.
        silence_seconds: how long the storage may take nothing before the end of a run no longer waits.
    """

    def __init__(
        self,
        copies: Copies,
        world: World,
        path: Callable[[int], Path],
        release: Callable[[], None],
        silence_seconds: float,
    ) -> None:
        self.copies, self.world, self._path, self._release = copies, world, path, release
        if world.group is not None:
            # What saving tells must not come between what copying tells; a rank that is gone is noticed by
            # its connection.
            self.world = world.patient()
        self._silence = silence_seconds
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        # Offers are counted, alike on all ranks: a step may be published twice.
        self._offers = self._handled = 0
        self._newest: int | None = None
        self._current: int | None = None
        self._wanted: list[int] = []
        self._copied: set[int] = set()
        self._skipped: list[int] = []
        self._untold: list[str] = []
        self._closing = self._given_up = self._broken = False
        self._moved_bytes, self._moved_at = 0, time.monotonic()

    def _left(self) -> list[int]:
        """Steps that are on their way, wait, or are wanted at the end."""
        waiting = self._newest if self._offers > self._handled else None
        return [step for step in (self._current, waiting, *self._wanted) if step is not None]

    @property
    def held(self) -> set[int]:
        """Steps whose checkpoints must stay, as they are on their way or wait."""
        with self._changed:
            return set(self._left())

    def offer(self, step: int) -> None:
        """A checkpoint was published; it takes the place of those that wait. Never waits.

        Args:
            step: its number.
        """
        with self._changed:
            if self._broken:
                return
            if self._offers > self._handled and self._newest != step:
                self._skip(self._newest)
            self._newest, self._offers = step, self._offers + 1
            self._copied.discard(step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoint copies", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def take_messages(self) -> list[str]:
        """What went wrong since the last call, to be told."""
        with self._changed:
            told, self._untold = self._untold, []
        return told

    def wait(self) -> None:
        """Wait until nothing is on its way and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._broken or not self._left())

    def close(self, wanted: Sequence[int], patience: float | None = None) -> None:
        """End: wait for what is on its way and what waits, then for what else is wanted.

        Waits no longer when the storage took nothing for the seconds that were given at the beginning, nor
        eight times as long in all.

        Args:
            wanted: steps that must have a copy; that of rank 0 counts.
            patience: seconds to wait at most, a minute after a signal; with 0 what is on its way is given up
                at once.
        """
        with self._changed:
            thread = self._thread
            if thread is None:
                return
            self._closing, self._given_up = True, patience == 0
            self._wanted = list(wanted)
            self._changed.notify_all()
        limit = _WHOLE_FACTOR * self._silence if patience is None else patience or _GIVING_UP_SECONDS
        self._join(thread, limit)
        with self._changed:
            self._closing = thread.is_alive()
            self._thread = thread if thread.is_alive() else None
            left = sorted(set(self._skipped) - self._copied)
            if len(left) > 1:
                named = ", ".join(map(str, left[:_NAMED])) + (", ..." if len(left) > _NAMED else "")
                self._untold.append(
                    f"WARNING: {len(left)} checkpoints were not copied, as newer ones came before their turn "
                    f"(steps {named})"
                )

    def _join(self, thread: threading.Thread, limit: float) -> None:
        begun = told = self._moved_at = time.monotonic()
        silence, hurried = min(self._silence, limit), False
        while True:
            thread.join(min(1.0, silence / 4))
            if not thread.is_alive():
                return
            now = time.monotonic()
            if not hurried and asked_to_stop():
                hurried, limit = True, min(limit, now - begun + HURRY_SECONDS)
            if now - self._moved_at > silence or now - begun > limit:
                break
            if now - told > _SECONDS_BETWEEN_LINES and self.world.is_main:
                told = now
                sent = f"{self._moved_bytes / 1e9:.2f} GB sent"
                log.info(
                    "waiting for the copy of step %s to %s, %s", self._current, self.copies.address, sent
                )
        with self._changed:
            self._given_up = True
            named = ", ".join(map(str, sorted(set(self._left()))))
            self._untold.append(
                f"WARNING: {self.copies.address}: took nothing in the last {now - self._moved_at:.0f} of "
                f"{now - begun:.0f} s, so the run no longer waits; not copied: steps {named}; the "
                "checkpoints here are whole"
            )

    def _skip(self, step: int | None) -> None:
        assert step is not None
        if not self._skipped:
            self._untold.append(
                f"WARNING: the checkpoint of step {step} is not copied, as a newer one came before its turn; "
                f"{self.copies.address} is slower than checkpoint.every_steps"
            )
        self._skipped.append(step)

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except Exception as error:
            # Most likely another rank is gone, which the training finds out by itself.
            with self._changed:
                self._untold.append(f"WARNING: no more checkpoints are copied: {error}")
                self._wanted, self._current, self._broken = [], None, True
                self._changed.notify_all()

    def _round(self) -> bool:
        """Copy one checkpoint; False when there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._offers > self._handled or self._closing)
        offer, step = tell_all(self.world, self._choose)
        with self._changed:
            self._handled, self._current = max(self._handled, offer), step
        if step is None:
            return False
        failure = self._copy(step)
        with self._changed:
            self._untold += [] if failure is None else [failure]
            self._copied |= {step} if failure is None else set()
            self._current = None
            self._changed.notify_all()
        if self.world.is_main:
            self._release()
        return True

    def _choose(self) -> tuple[int, int | None]:
        """On rank 0: how many offers are dealt with by copying which step; None when nothing is left."""
        with self._changed:
            if self._offers > self._handled:
                self._current = self._newest
            else:
                left = [step for step in self._wanted if step not in self._copied and not self._given_up]
                self._current, self._wanted = (left[0] if left else None), left[1:]
            self._handled = self._offers
            return self._handled, self._current

    def _copy(self, step: int) -> str | None:
        """Copy a checkpoint, each rank its share of the files; returns what went wrong."""
        folder, world, copies = self._path(step), self.world, self.copies

        def put() -> None:
            names = [entry.path for entry in read_entries(read_manifest(folder))]
            copies.put(folder, step, names[world.rank :: world.size], self._moved)

        try:
            tell_all(world, lambda: copies.begin(step))
            all_do(world, put)
            tell_all(world, lambda: copies.finish(folder, step))
        except UserError as error:
            return f"WARNING: the checkpoint of step {step} was saved, but not copied: {error}"
        return None

    def _moved(self, num_bytes: int) -> None:
        """The storage took some bytes.

        Raises:
            StorageError: nobody waits for them any more.
        """
        self._moved_bytes, self._moved_at = self._moved_bytes + num_bytes, time.monotonic()
        if self._given_up:
            raise StorageError(f"{self.copies.address}: the run has ended; start it again to copy the rest")
