"""`maskwright finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .common import job_command

__all__ = ["finetune"]

HEADLINE = (
    *("output", "report", "split", "count", "accuracy", "macro_precision", "macro_recall", "macro_f1"),
    *("majority_accuracy", "seconds"),
)


def _load() -> tuple[Any, Any]:
    from ..jobs.finetune import finetune_model
    from ..tasks.classification.finetune import FinetuneConfig

    return FinetuneConfig, finetune_model


finetune = job_command(
    "finetune",
    "A pretrained encoder and labelled texts to a classifier, measured on its test part.",
    _load,
    HEADLINE,
    lambda recipe: Path("runs") / (f"{recipe}-finetune" if recipe else "finetune"),
)
