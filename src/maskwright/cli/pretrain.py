"""`maskwright pretrain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import Arguments, DryRun, Json, Output, Overwrite, Resume, job_runner

__all__ = ["pretrain", "with_profile"]

PROFILED_STEPS = 3

HEADLINE = (
    *("output", "report", "steps", "validation_loss", "unigram_loss", "validation_accuracy"),
    *("tokens_per_second", "peak_share", "seconds"),
)


def _load() -> tuple[Any, Any]:
    from ..jobs.pretrain import pretrain_model
    from ..training.pretrain_config import PretrainConfig

    return PretrainConfig, pretrain_model


_run = job_runner(
    "pretrain",
    _load,
    HEADLINE,
    lambda recipe: Path("runs") / (recipe or "pretrain"),
)


def pretrain(
    arguments: Arguments = None,
    output: Output = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile a few steps: a trace, and where time goes.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: go on although settings or data changed.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """A data folder to a pretrained encoder, exported for Hugging Face, with a report."""
    given = with_profile(arguments or []) if profile else arguments
    _run(given, output=output, resume=resume, overwrite=overwrite, dry_run=dry_run, json=json, force=force)


def with_profile(arguments: Sequence[str]) -> list[str]:
    """The arguments with profiling turned on, unless they say themselves how many steps to profile."""
    if any(text.startswith("profile.steps=") for text in arguments):
        return list(arguments)
    return [*arguments, f"profile.steps={PROFILED_STEPS}"]
