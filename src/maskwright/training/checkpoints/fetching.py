"""A copy of a checkpoint on its way back: ranks bring it together, and go on where an earlier attempt ended.

Each rank takes a share of the files. They lie in a folder of their own until all are there and their
checksums are right; a start that ends before that leaves what it has, and the next one keeps what is whole.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ...core.errors import Interrupted, OutOfReachError, StorageError
from ...core.files import write_bytes
from ...core.inventory import FileEntry
from ...core.log import get_logger
from ...parallel.world import World
from ..signals import asked_to_stop
from .copies import Copies, Differs
from .folders import FETCHED, replace_folder, step_name, steps_below
from .manifest import MANIFEST, DamagedCheckpointError, parse_manifest, read_entries
from .together import all_do, refusals, tell_all

__all__ = ["check_address", "fetch_copy"]

log = get_logger(__name__)
_SECONDS_BETWEEN_LINES = 30.0


def check_address(address: str | None, folder: Path, differs: Differs, timeout_seconds: float) -> None:
    """See that the address of a run's copies belongs to it, or to none yet; called on one rank.

    Args:
        address: of the copies; None where there are none.
        folder: of the checkpoints here. A run that has some is content not to know.
        differs: compares the manifest of a copy with this run.
        timeout_seconds: how long the others wait.

    Raises:
        ConfigError: it holds checkpoints of another run.
        OutOfReachError: there are none here, and the storage was away for too long.
        StorageError: there are none here, and the storage refused; or the address is of no known kind.
    """
    if address is None:
        return
    copies, needed = Copies(address, differs, timeout_seconds), not steps_below(folder)
    try:
        copies.check_owner(patient=needed)
    except (OutOfReachError, StorageError) as error:
        if needed:
            raise
        log.warning("%s; whether it holds checkpoints of another run is not known", error)


def fetch_copy(copies: Copies, step: int, folder: Path, world: World) -> None:
    """Bring a copy back to the checkpoints of a run. All ranks call this at the same time.

    Args:
        copies: where it lies.
        step: of the checkpoint.
        folder: of the checkpoints.
        world: the ranks; their group must be as patient as the slowest of them may be.

    Raises:
        DamagedCheckpointError: the copy is not whole.
        CheckpointError: it is of another version of the format.
        Interrupted: a signal asked to stop; what is here is kept.
        OutOfReachError: the storage was away for too long.
        StorageError: a storage refused.
    """
    temporary, final = folder / f"{FETCHED}{step_name(step)}", folder / step_name(step)
    entries = tell_all(world, lambda: _begin(copies, step, temporary))
    mine = entries[world.rank :: world.size]

    def fetch() -> None:
        progress = _Progress(f"step {step} from {copies.address}", mine, quiet=not world.is_main)
        with refusals(final):
            copies.fetch(step, temporary, mine, progress.moved)

    def publish() -> None:
        with refusals(final):
            replace_folder(temporary, final)

    try:
        all_do(world, fetch)
    except DamagedCheckpointError:
        if world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    tell_all(world, publish)
    if world.is_main:
        log.info("%s: no whole checkpoint; took step %d from %s", folder, step, copies.address)


def _begin(copies: Copies, step: int, temporary: Path) -> list[FileEntry]:
    """The files of a copy, the largest first; what lies here of another one is removed."""
    content = copies.manifest(step, patient=True)
    entries = read_entries(parse_manifest(content, copies.place(step)))
    with refusals(temporary):
        for other in temporary.parent.glob(f"{FETCHED}*"):
            if other != temporary or not _is_of(other, content):
                shutil.rmtree(other, ignore_errors=True)
        temporary.mkdir(parents=True, exist_ok=True)
        write_bytes(temporary / MANIFEST, content)
    return sorted(entries, key=lambda entry: -entry.num_bytes)


def _is_of(folder: Path, content: bytes) -> bool:
    try:
        return (folder / MANIFEST).read_bytes() == content
    except OSError:
        return False


class _Progress:
    """Says now and then how far a rank is; stops where somebody asks for it.

    Args:
        what: is fetched.
        entries: the files.
        quiet: whether another rank says it.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, what: str, entries: list[FileEntry], *, quiet: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._quiet, self._clock = what, quiet, clock
        self._total = sum(entry.num_bytes for entry in entries)
        self._done, self._begun = 0, clock()
        self._told = self._begun

    def moved(self, num_bytes: int) -> None:
        """Some bytes are here.

        Raises:
            Interrupted: a signal asked to stop.
        """
        self._done += num_bytes
        if asked_to_stop():
            raise Interrupted(f"stopped by a signal while fetching {self._what}; what is here is kept")
        now = self._clock()
        if self._quiet or now - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told, rate = now, self._done / max(now - self._begun, 1e-9)
        left = max(0, self._total - self._done) / max(rate, 1e-9)
        log.info(
            "fetching %s: %.2f of %.2f GB of this process's share, %.0f MB/s, %.0f s left",
            self._what,
            self._done / 1e9,
            self._total / 1e9,
            rate / 1e6,
            left,
        )
