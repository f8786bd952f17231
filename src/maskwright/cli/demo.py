"""`maskwright demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .common import Arguments, DryRun, Json, Output, Overwrite, print_json, split_arguments

__all__ = ["demo"]


def demo(
    arguments: Arguments = None,
    output: Output = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """A recipe from raw text to its report; run it again after an interruption and it goes on.

    Overrides begin with the section: maskwright demo demo pretrain.steps=500
    """
    recipe, overrides = split_arguments(arguments)
    name = recipe or "demo"
    folder = output or Path("runs") / Path(name).stem
    if dry_run:
        import yaml

        from ..jobs.demo import resolve_sections

        sections = resolve_sections(name, folder, overrides)
        if json:
            print_json(sections)
        else:
            typer.echo(yaml.safe_dump(sections, sort_keys=False, allow_unicode=True), nl=False)
        return
    from ..jobs.demo import run_demo

    results = run_demo(name, folder, overrides, overwrite=overwrite)
    if json:
        print_json(results)
        return
    _show(results)


def _show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    losses = Table(title="Masked language model: validation loss, nats a token")
    for name in ("unigram baseline", "our encoder", "gain"):
        losses.add_column(name, justify="right")
    gain = results["unigram_loss"] - results["validation_loss"]
    losses.add_row(f"{results['unigram_loss']:.3f}", f"{results['validation_loss']:.3f}", f"{gain:.3f}")
    console.print(losses)
    table = Table(title="Classifier: same head and budget, test part, 95 % intervals")
    table.add_column("encoder")
    for name in ("accuracy", "macro F1"):
        table.add_column(name, justify="right")
    metrics = ("accuracy", "macro_f1")
    for name, numbers in results["classifier"].items():
        cells = (_interval(numbers[metric], "value", ".3f") for metric in metrics)
        table.add_row(f"{name} weights", *cells)
    table.add_row("difference", *(_interval(results["difference"][m], "difference", "+.3f") for m in metrics))
    console.print(table)
    typer.echo(f"report: {results['report']}")


def _interval(numbers: dict[str, float], name: str, style: str) -> str:
    return f"{numbers[name]:{style}} ({numbers['low']:{style}} to {numbers['high']:{style}})"
