"""What workers write: a file for each rank and stream, and rank 0 also on the terminal."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import IO

from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs

from ...core.files import storage_errors

__all__ = ["Follower", "RankLogs", "log_folder"]

_PAUSE_SECONDS = 0.1


def log_folder(run: Path, suffix: str = "") -> Path:
    """Make a folder for the logs of one launch.

    Args:
        run: the run's folder.
        suffix: what tells machines apart that start at the same time.

    Raises:
        StorageError: the storage refused.
    """
    name = time.strftime("%Y%m%d-%H%M%S") + suffix
    folder, number = run / "logs" / name, 1
    with storage_errors(folder):
        while folder.exists():
            number += 1
            folder = run / "logs" / f"{name}-{number}"
        folder.mkdir(parents=True)
    return folder


class RankLogs(LogsSpecs):
    """Names the files, by the number of a start and the rank in the whole run.

    Args:
        folder: of this launch.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder
        self.attempt = -1

    @property
    def root_log_dir(self) -> str:
        """The folder as text."""
        return str(self.folder)

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Where each worker of this machine writes.

        Args:
            envs: the variables of each worker by local rank.
        """
        self.attempt += 1  # torchrun's own count leaves out starts after machines came or went
        ranks = {local: int(variables["RANK"]) for local, variables in envs.items()}
        (self.folder / f"attempt-{self.attempt}").mkdir(parents=True, exist_ok=True)
        return LogsDest(
            stdouts={local: str(self.path(rank, "out")) for local, rank in ranks.items()},
            stderrs={local: str(self.path(rank, "err")) for local, rank in ranks.items()},
            error_files=dict.fromkeys(ranks, ""),
        )

    def path(self, rank: int, stream: str) -> Path:
        """The file of a rank.

        Args:
            rank: in the whole run.
            stream: `out` or `err`.
        """
        return self.folder / f"attempt-{self.attempt}" / f"rank-{rank}.{stream}"


class Follower:
    """Copies what is added to a file to a stream, until it is told that no more comes, or the stream is gone.

    Args:
        path: the file; it exists.
        target: where to.
    """

    def __init__(self, path: Path, target: IO[str]) -> None:
        self._path, self._target = path, target
        self._last = threading.Event()
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        # A terminal or a pipe may go away before the run ends; the file has it all.
        with contextlib.suppress(OSError):
            self._follow()

    def _follow(self) -> None:
        with self._path.open(encoding="utf-8", errors="replace", newline="") as file:
            while True:
                last = self._last.is_set()
                if text := file.read():
                    self._target.write(text)
                    self._target.flush()
                elif last:
                    return
                else:
                    self._last.wait(_PAUSE_SECONDS)

    def close(self) -> None:
        """Copy what is left, and stop."""
        self._last.set()
        self._thread.join()
