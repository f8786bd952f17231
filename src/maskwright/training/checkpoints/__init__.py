"""Checkpoints of a run: written by all ranks behind the training, whole or absent, and found again."""

from __future__ import annotations

from .store import Checkpoints, LoadedCheckpoint

__all__ = ["Checkpoints", "LoadedCheckpoint"]
