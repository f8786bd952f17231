"""Checksums of large data on a disk, compared behind the training.

To read terabytes before the first step would take hours, and not to read them would let a damaged disk train
the model. So each process reads its share of the files while the run goes on, and a file that differs ends
the run at the next step. What was trained on before is not taken back. Cost: one thread, and reading all of
the data once a start, over all processes together.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..core.errors import ShardError
from ..core.log import get_logger
from .manifest import REMEDY
from .shards import TokenData

__all__ = ["DataCheck"]

log = get_logger(__name__)


class _Closed(Exception):  # noqa: N818 - it is not a fault
    """Nobody wants to know any more."""


class DataCheck:
    """Compares the files of some splits that were not compared when they were opened.

    Args:
        splits: to look at.
        rank: number of this process.
        size: number of processes; each takes its share.
    """

    def __init__(self, splits: Sequence[TokenData], rank: int = 0, size: int = 1) -> None:
        files = [(data.folder, entry) for data in splits for entry in data.unverified()]
        self._total_bytes = sum(entry.num_bytes for _, entry in files)
        # Dealt out in the order of sizes, so that shares differ by no more than the largest file.
        self._mine = sorted(files, key=lambda file: -file[1].num_bytes)[rank::size]
        self._tells, self._size = rank == 0 and bool(files), size
        self._damage: ShardError | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checksums", daemon=True)

    def start(self) -> None:
        """Begin, if there is anything to compare."""
        if self._tells:
            log.info(
                "%.1f GB of data are compared with their checksums behind the training%s",
                self._total_bytes / 1e9,
                "" if self._size == 1 else f", {self._size} processes sharing them",
            )
        if self._mine:
            self._thread.start()

    def raise_damage(self) -> None:
        """Never waits.

        Raises:
            ShardError: a file was found that is not what the manifest says.
        """
        if self._damage is not None:
            raise self._damage

    def close(self) -> None:
        """Give up what is not compared yet."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            for folder, entry in self._mine:
                entry.check(folder, ShardError, REMEDY, content=True, between=self._go_on)
        except _Closed:
            return
        except ShardError as error:
            self._damage = error
        except OSError as error:
            self._damage = ShardError(
                f"{folder / entry.path}: cannot be read ({error.strerror or error}); {REMEDY}"
            )
        else:
            if self._tells:
                log.info("the data is what its manifest says%s", " (this share)" if self._size > 1 else "")

    def _go_on(self) -> None:
        if self._closed.is_set():
            raise _Closed
