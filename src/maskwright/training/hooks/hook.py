"""The seam between the training loop and whatever watches it."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Hook", "Record"]

Record = dict[str, Any]


class Hook(Protocol):
    """Something that is told what happens; a seam for trackers that users bring."""

    def record(self, record: Record) -> None:
        """Take one line: `kind` is train, evaluation or event, `step` its step."""

    def close(self) -> None:
        """The run ends, one way or another."""
