"""`maskwright pretrain`."""

from __future__ import annotations

from .common import (
    Arguments,
    DryRun,
    Json,
    Output,
    Overwrite,
    Resume,
    default_output,
    run_verb,
    split_arguments,
)

__all__ = ["pretrain"]

HEADLINE = (
    *("output", "report", "steps", "validation_loss", "unigram_loss", "validation_accuracy"),
    *("tokens_per_second", "peak_share", "seconds"),
)


def pretrain(
    arguments: Arguments = None,
    output: Output = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """A data folder to a pretrained encoder, exported for Hugging Face, with a report."""
    from ..api import resolve
    from ..jobs.pretrain import pretrain_model
    from ..training.pretrain_config import PretrainConfig

    recipe, overrides = split_arguments(arguments)
    config = resolve(PretrainConfig, "pretrain", recipe, overrides)
    folder = default_output(output, "runs", recipe, "pretrain")
    run_verb(
        config,
        lambda: pretrain_model(config, folder, resume=resume, overwrite=overwrite),
        dry_run=dry_run,
        as_json=json,
        headline=HEADLINE,
    )
