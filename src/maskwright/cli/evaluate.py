"""`maskwright evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..core.errors import ConfigError
from .common import DryRun, Json, Output, run_verb, split_arguments

__all__ = ["evaluate"]

HEADLINE = (
    *("task", "count", "accuracy", "macro_precision", "macro_recall", "macro_f1", "majority_accuracy"),
    *("loss", "perplexity", "unigram_loss", "targets"),
)


def evaluate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="FOLDER KEY=VALUE", help="Run or model folder, then data=... and changes."),
    ] = None,
    output: Output = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Measure a model: maskwright evaluate MODEL_FOLDER data=FILE_OR_FOLDER [key=value ...]."""
    from ..api import resolve
    from ..jobs.evaluate import EvaluateConfig, evaluate_model

    model, overrides = split_arguments(arguments)
    if model is None:
        raise ConfigError("evaluate: no model was given; write maskwright evaluate FOLDER data=...")
    config = resolve(EvaluateConfig, "evaluate", {"model": model}, overrides)
    run_verb(config, lambda: evaluate_model(config, output), dry_run=dry_run, as_json=json, headline=HEADLINE)
