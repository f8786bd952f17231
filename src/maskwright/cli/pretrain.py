"""`maskwright pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .common import job_command

__all__ = ["pretrain"]

HEADLINE = (
    *("output", "report", "steps", "validation_loss", "unigram_loss", "validation_accuracy"),
    *("tokens_per_second", "peak_share", "seconds"),
)


def _load() -> tuple[Any, Any]:
    from ..jobs.pretrain import pretrain_model
    from ..training.pretrain_config import PretrainConfig

    return PretrainConfig, pretrain_model


pretrain = job_command(
    "pretrain",
    "A data folder to a pretrained encoder, exported for Hugging Face, with a report.",
    _load,
    HEADLINE,
    lambda recipe: Path("runs") / (recipe or "pretrain"),
)
