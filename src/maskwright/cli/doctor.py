"""`maskwright doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, print_json

__all__ = ["doctor"]

_MARKS = {"ok": "ok     ", "slow": "slow   ", "missing": "missing"}


def doctor(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where work would be written.")] = Path(),
    json: Json = False,
) -> None:
    """What this machine offers, what is slow or missing, and the remedy."""
    from ..jobs.doctor import examine

    found = examine(folder)
    if json:
        print_json(found)
        return
    machine = found["machine"]
    typer.echo(f"processor  {machine['cpu']}, {machine['cores']} cores")
    flags = ", ".join(name for name, present in machine["flags"].items() if present)
    typer.echo(f"flags      {flags or 'none that matter here'}")
    typer.echo(f"memory     {_gigabytes(machine['memory_bytes'])}")
    typer.echo(f"disk free  {_gigabytes(found['free_disk_bytes'])}")
    typer.echo(f"GPUs       {', '.join(str(gpu) for gpu in machine['gpus']) or 'none'}")
    typer.echo("versions   " + ", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    typer.echo("")
    for line in found["advice"]:
        remedy = f": {line['remedy']}" if line["remedy"] else ""
        typer.echo(f"{_MARKS[line['level']]}  {line['what']}{remedy}")


def _gigabytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 1e9:.1f} GB"
