"""`maskwright finetune`."""

from __future__ import annotations

from pathlib import Path

from .common import (
    Arguments,
    DryRun,
    Json,
    Output,
    Overwrite,
    Resume,
    run_verb,
    split_arguments,
)

__all__ = ["finetune"]

HEADLINE = (
    *("output", "report", "split", "count", "accuracy", "macro_precision", "macro_recall", "macro_f1"),
    *("majority_accuracy", "seconds"),
)


def finetune(
    arguments: Arguments = None,
    output: Output = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """A pretrained encoder and labelled texts to a classifier, measured on its test part."""
    from ..api import resolve
    from ..jobs.finetune import finetune_model
    from ..tasks.classification.finetune import FinetuneConfig

    recipe, overrides = split_arguments(arguments)
    config = resolve(FinetuneConfig, "finetune", recipe, overrides)
    folder = output or Path("runs") / (f"{Path(recipe).stem}-finetune" if recipe else "finetune")
    run_verb(
        config,
        lambda: finetune_model(config, folder, resume=resume, overwrite=overwrite),
        dry_run=dry_run,
        as_json=json,
        headline=HEADLINE,
    )
