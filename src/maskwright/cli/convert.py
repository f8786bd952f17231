"""`maskwright export` and `maskwright import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, show

__all__ = ["export", "import_"]

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Data folder.")]
To = Annotated[str, typer.Option("--to", help="megatron or hf-dataset.")]
Destination = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")]
Prefix = Annotated[Path, typer.Option(help="Megatron dataset: its path without .bin and .idx.")]


def export(
    folder: Folder,
    to: To,
    output: Destination,
    sequence_length: Annotated[
        int | None, typer.Option(help="hf-dataset: tokens of a row; by default whole documents.")
    ] = None,
    sentences: Annotated[
        bool, typer.Option("--sentences", help="megatron: each sentence is a sequence.")
    ] = False,
    json: Json = False,
) -> None:
    """Token shards to the files of other trainers."""
    from ..jobs.convert import export_data

    found = export_data(folder, to, output, sequence_length=sequence_length, sentences=sentences)
    show(found, as_json=json)


def import_(
    train: Prefix,
    validation: Prefix,
    tokenizer: Annotated[Path, typer.Option(help="What made the ids: a folder or a tokenizer.json.")],
    output: Destination,
    closing_id: Annotated[
        int | None, typer.Option(help="Id that closes documents there; by default that of </s>.")
    ] = None,
    sentences: Annotated[bool, typer.Option("--sentences", help="Each sequence is a sentence.")] = False,
    json: Json = False,
) -> None:
    """Megatron datasets to token shards."""
    from ..jobs.convert import import_data

    found = import_data(train, validation, tokenizer, output, closing_id=closing_id, sentences=sentences)
    show(found, as_json=json)
