"""A data folder to a pretrained encoder, its numbers and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..report import write_report
from ..training.pretrain_config import PretrainConfig
from ..training.pretraining import run_pretraining
from .outputs import claim_output

__all__ = ["pretrain_model"]


def pretrain_model(
    config: PretrainConfig, folder: Path, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Pretrain, or go on with it.

    Args:
        config: what to do.
        folder: the run's folder.
        resume: go on from the newest checkpoint.
        overwrite: start again.

    Returns:
        The run's summary.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: data, settings or storage refused.
    """

    def claim() -> None:
        claim_output(config, folder, resume=resume, overwrite=overwrite)

    summary = run_pretraining(config, folder, claim=claim)
    command = f"maskwright pretrain -o {folder}"
    write_report(
        folder / "report.html", folder.name, data=Path(config.data), pretrain=folder, command=command
    )
    return {"output": str(folder), "report": str(folder / "report.html"), **summary}
