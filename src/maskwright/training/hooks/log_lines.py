"""Lines about a run for the people who watch its terminal."""

from __future__ import annotations

import math

from ...core.log import get_logger
from .hook import Record

__all__ = ["LogLines"]

log = get_logger(__name__)


class LogLines:
    """One line a record for people, with the time left.

    Args:
        total_steps: steps of the run; a record that knows better says so.
        every_seconds: shortest time between two training lines.
    """

    def __init__(self, total_steps: int, every_seconds: float = 5.0) -> None:
        self.total_steps, self.every_seconds = total_steps, every_seconds
        self._last = -math.inf

    def record(self, record: Record) -> None:
        """Log an event or evaluation always, a training step when it is time."""
        kind, step = record["kind"], record["step"]
        if kind == "event":
            log.info("step %d: %s", step, record["message"])
        elif kind == "evaluation":
            log.info("step %d: validation loss %.4f, accuracy %.3f", step, record["loss"], record["accuracy"])
            return
        total = record.get("total_steps", self.total_steps)
        if kind == "train" and (record["seconds"] - self._last >= self.every_seconds or step >= total):
            self._last = record["seconds"]
            left = (total - step) * record["step_seconds"]
            log.info(
                "step %d/%d  loss %.4f  lr %.2e  grad norm %.2f  %s tokens/s  %s left",
                step,
                total,
                record["loss"],
                record["lr"],
                record["grad_norm"],
                f"{record['tokens_per_second']:,.0f}",
                _duration(left),
            )

    def close(self) -> None:
        """Nothing is held."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
