"""TensorBoard events of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ...core.errors import MissingDependencyError
from ...core.files import storage_errors
from ...core.log import get_logger
from .hook import Record

__all__ = ["TensorBoard"]

log = get_logger(__name__)


class TensorBoard:
    """Writes numbers to TensorBoard event files; gives up with a warning when the storage refuses.

    Args:
        folder: the `events` folder of the run.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError("tensorboard", "train", "write TensorBoard events") from error
        with storage_errors(folder):
            self._writer = SummaryWriter(str(folder))
        self._works = True

    def record(self, record: Record) -> None:
        """Write each number under `kind/name`."""
        with self._giving_up():
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def close(self) -> None:
        """Flush the file."""
        with self._giving_up():
            self._writer.close()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Its writing thread ends at the first refusal, and every later call would raise it again."""
        try:
            yield
        except OSError as error:
            if self._works:
                log.warning("TensorBoard events: %s; no more are written", error.strerror or error)
            self._works = False
