"""A data folder to a pretrained encoder, its numbers and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..report import write_report
from ..training.checkpoints import refuse_used_address
from ..training.pretrain_config import PretrainConfig
from ..training.pretrain_setting import open_place
from ..training.pretraining import run_pretraining
from .outputs import claim_output

__all__ = ["pretrain_model"]


def pretrain_model(
    config: PretrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Pretrain, or go on with it.

    Args:
        config: what to do.
        folder: the run's folder.
        resume: go on from the newest checkpoint.
        overwrite: start again.
        force: go on although settings or data changed.

    Returns:
        The run's summary; nothing but the output on ranks other than 0.

    Raises:
        Interrupted: stopped by a signal after saving.
        UserError: data, settings or storage refused.
    """

    def claim() -> None:
        if not resume:
            refuse_used_address(config.checkpoint.upload)
        claim_output(config, folder, resume=resume, overwrite=overwrite, force=force, accept_later=True)

    summary = run_pretraining(config, folder, claim=claim, force=force)
    if not summary:  # another rank tells about the run
        return {"output": str(folder)}
    command = f"maskwright pretrain -o {folder}"
    write_report(
        folder / "report.html",
        folder.name,
        data=open_place(config).path,
        pretrain=folder,
        command=command,
    )
    return {"output": str(folder), "report": str(folder / "report.html"), **summary}
