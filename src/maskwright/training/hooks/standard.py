"""The hooks that every run has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .hook import Hook
from .json_lines import JsonLines
from .log_lines import LogLines
from .tensorboard import TensorBoard

__all__ = ["standard_hooks"]


def standard_hooks(folder: Path, total_steps: int, further: Sequence[Hook]) -> list[Hook]:
    """What every run has: `metrics.jsonl`, TensorBoard events and log lines, then the caller's own."""
    return [
        JsonLines(folder / "metrics.jsonl"),
        TensorBoard(folder / "events"),
        LogLines(total_steps),
        *further,
    ]
