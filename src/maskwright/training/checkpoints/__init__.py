"""Checkpoints of a run: written by all ranks behind the training, whole or absent, and found again."""

from __future__ import annotations

from .copies import refuse_used_address
from .fetching import check_address
from .store import Checkpoints, LoadedCheckpoint

__all__ = ["Checkpoints", "LoadedCheckpoint", "check_address", "refuse_used_address"]
