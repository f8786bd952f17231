"""`maskwright inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    flight: Annotated[
        bool, typer.Option("--flight", help="Run: what each process did last, and who stopped first.")
    ] = False,
    json: Json = False,
) -> None:
    """Look into prepared data, a run, or a model."""
    from ..jobs.inspect import inspect_folder

    found = inspect_folder(
        folder, document=document, shard=shard, split=split, verify=verify, words=words, flight=flight
    )
    if flight and not json:
        _show_flight(found)
        return
    if "words" in found.get("document", {}) and not json:
        found["document"]["words"] = "|".join(found["document"]["words"])
    show(found, as_json=json)


def _earlier_line(start: dict[str, Any]) -> str:
    where = "no step" if start["step"] is None else f"step {start['step']}"
    first, reason = start["stopped_first"], start["reason"]
    if first is None:
        how = reason or "nobody said how it ended"
    else:
        how = f"rank {first}: {reason or 'did not say how it ended, as one that is killed'}"
    return f"before, started {start['started']}: {where}; {how}"


def _show_flight(found: dict[str, Any]) -> None:
    """A line for each process, and what they are together."""
    for line in found["lines"]:
        typer.echo(line)
    for name, what in (("missing", "left no recorder"), ("damaged", "left a recorder that cannot be read")):
        for rank in found[name]:
            typer.echo(f"rank {rank}: {what}")
    for start in found["earlier"]:
        typer.echo(_earlier_line(start))
    first, hows = found["stopped_first"], {rank["how"] for rank in found["ranks"]}
    unknown = "not known" if "lost" in hows else "nobody"
    show(
        {
            "processes": found["processes"],
            "stopped_first": unknown if first is None else f"rank {first}",
            "versions": found["versions"],
            **{f"versions of rank {rank}": one for rank, one in found["other_versions"].items()},
        },
        as_json=False,
    )
