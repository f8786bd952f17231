"""A pretrained encoder and labelled texts to a classifier, its numbers and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..report import write_report
from ..tasks.classification.finetune import FinetuneConfig, run_finetuning
from .outputs import claim_output

__all__ = ["finetune_model"]


def finetune_model(
    config: FinetuneConfig, folder: Path, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Fine-tune, or go on with it.

    Args:
        config: what to do.
        folder: the run's folder.
        resume: go on from the newest checkpoint.
        overwrite: start again.

    Returns:
        The evaluation on the test part.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: data, settings or storage refused.
    """

    def claim() -> None:
        claim_output(config, folder, resume=resume, overwrite=overwrite)

    evaluation = run_finetuning(config, folder, claim=claim)
    command = f"maskwright finetune -o {folder}"
    write_report(folder / "report.html", folder.name, finetune=[(folder.name, folder)], command=command)
    return {"output": str(folder), "report": str(folder / "report.html"), **evaluation}
