"""`maskwright prepare`."""

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

__all__ = ["prepare"]

HEADLINE = (
    "output",
    "documents_read",
    "documents_kept",
    "drops",
    "vocab_size",
    "train_tokens",
    "bytes_per_token",
)


def prepare(
    arguments: Arguments = None,
    output: Output = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Raw text to clean documents, a tokenizer and token shards."""
    from ..api import resolve
    from ..jobs.prepare import PrepareConfig, prepare_data

    recipe, overrides = split_arguments(arguments)
    config = resolve(PrepareConfig, "prepare", recipe, overrides)
    folder = default_output(output, "data", recipe, "local-docs")
    run_verb(
        config,
        lambda: prepare_data(config, folder, resume=resume, overwrite=overwrite),
        dry_run=dry_run,
        as_json=json,
        headline=HEADLINE,
    )
