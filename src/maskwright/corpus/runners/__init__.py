"""Who does the numbered tasks of a stage: this machine's processes, a Ray cluster, or a Slurm array."""

from __future__ import annotations

from .runner import RunnerName, make_runner
from .stage import Share, ShareDone, Stage, TaskResult, Work, run_stage

__all__ = [
    "RunnerName",
    "Share",
    "ShareDone",
    "Stage",
    "TaskResult",
    "Work",
    "make_runner",
    "run_stage",
]
