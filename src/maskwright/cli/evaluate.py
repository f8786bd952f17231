"""`maskwright evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from ..core.errors import ConfigError
from .common import DryRun, Json, Output, run_verb, split_arguments

__all__ = ["evaluate"]

HEADLINE = (
    *("task", "scoring", "count", "accuracy", "macro_accuracy", "ties"),
    *("macro_precision", "macro_recall", "macro_f1", "majority_accuracy"),
    *("pseudo_perplexity", "loss", "perplexity", "unigram_loss", "targets", "tokens"),
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
    results: dict[str, Any] = {}

    def work() -> Mapping[str, Any]:
        results.update(evaluate_model(config, output))
        return results

    run_verb(config, work, dry_run=dry_run, as_json=json, headline=HEADLINE)
    if not json:
        for line in _details(results):
            typer.echo(line)


def _details(results: Mapping[str, Any]) -> Iterator[str]:
    """The tables below the main numbers, as lines: of sources, or of phenomena."""
    sources = results.get("sources") or {}
    if sources:
        columns = ("share", "sequences", "loss", "accuracy", "perplexity", "unigram_loss")
        rows = [[name, *(values.get(key) for key in columns)] for name, values in sources.items()]
        yield from _table(["source", *(key.replace("_", " ") for key in columns)], rows)
    if "phenomena" in results:
        yield from _table(
            ["phenomenon", "field", "pairs", "ties", "accuracy", "low", "high"],
            [
                [entry["name"], entry["field"], entry["count"], entry["ties"], *entry["accuracy"].values()]
                for entry in results["phenomena"]
            ],
        )


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Aligned columns: text to the left, numbers to the right. A Chinese character is two wide."""
    from rich.cells import cell_len

    written = [headings, *([_cell(value) for value in row] for row in rows)]
    is_text = [all(isinstance(row[column], str) for row in rows) for column in range(len(headings))]
    widths = [max(cell_len(row[column]) for row in written) for column in range(len(headings))]
    yield ""
    for row in written:
        cells = []
        for text, width, left in zip(row, widths, is_text, strict=True):
            space = " " * (width - cell_len(text))
            cells.append(text + space if left else space + text)
        yield "  ".join(cells).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.4f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
    )
