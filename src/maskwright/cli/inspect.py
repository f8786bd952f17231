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
    words: Annotated[
        bool, typer.Option("--words", help="Data: with --document, also its words, as masking sees them.")
    ] = False,
    json: Json = False,
) -> None:
    """Look into prepared data, a run, or a model."""
    from ..jobs.inspect import inspect_folder

    found = inspect_folder(folder, document=document, shard=shard, split=split, verify=verify, words=words)
    if "words" in found.get("document", {}) and not json:
        found["document"]["words"] = "|".join(found["document"]["words"])
    show(found, as_json=json)
