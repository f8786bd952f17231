"""`maskwright export` and `maskwright import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, show

__all__ = ["export", "import_"]

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Run, checkpoint or model (for hf); or data folder.")
]
Source = Annotated[
    Path | None,
    typer.Argument(metavar="MODEL", help="Hugging Face folder, or model.pt of fairseq. Left out for data."),
]
To = Annotated[str, typer.Option("--to", help="hf for a model; megatron or hf-dataset for data.")]
Destination = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")]
Prefix = Annotated[Path | None, typer.Option(help="Megatron dataset: its path without .bin and .idx.")]
ModelTokenizer = Annotated[
    Path | None, typer.Option("--tokenizer", help="hf: the model's tokenizer, if not where the run has it.")
]
# What people want to see of a model; the numbers behind it are in --json.
_OF_MODELS = ["output", "from", "model_type", "heads", "parameters", "difference"]


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
    tokenizer: ModelTokenizer = None,
    json: Json = False,
) -> None:
    """A model to a Hugging Face folder, or token shards to the files of other trainers."""
    from ..jobs.convert import export_folder

    found = export_folder(
        folder, to, output, sequence_length=sequence_length, sentences=sentences, tokenizer=tokenizer
    )
    show(found, as_json=json, headline=_OF_MODELS if to == "hf" else None)


def import_(
    output: Destination,
    model: Source = None,
    train: Prefix = None,
    validation: Prefix = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="What made the ids: a folder or a tokenizer.json. For a model: if not beside it."),
    ] = None,
    closing_id: Annotated[
        int | None, typer.Option(help="Id that closes documents there; by default that of </s>.")
    ] = None,
    sentences: Annotated[bool, typer.Option("--sentences", help="Each sequence is a sentence.")] = False,
    json: Json = False,
) -> None:
    """A model of Hugging Face or fairseq to ours, or Megatron datasets to token shards."""
    from ..jobs.convert import import_folder

    found = import_folder(
        model,
        output,
        train=train,
        validation=validation,
        tokenizer=tokenizer,
        closing_id=closing_id,
        sentences=sentences,
    )
    show(found, as_json=json, headline=_OF_MODELS if model is not None else None)
