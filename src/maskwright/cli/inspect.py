"""`maskwright inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, show

__all__ = ["inspect"]


def inspect(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Data folder, run, or exported model.")],
    document: Annotated[
        int | None, typer.Option(help="Data: number of a document to decode; with --shard, of that shard.")
    ] = None,
    shard: Annotated[int | None, typer.Option(help="Data: number of a shard to describe and verify.")] = None,
    split: Annotated[str, typer.Option(help="Data: the split it is in.")] = "train",
    verify: Annotated[bool, typer.Option("--verify", help="Data: compare every checksum.")] = False,
    json: Json = False,
) -> None:
    """Look into prepared data, a run, or a model."""
    from ..jobs.inspect import inspect_folder

    show(inspect_folder(folder, document=document, shard=shard, split=split, verify=verify), as_json=json)
