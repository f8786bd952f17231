"""`maskwright monitor`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import Json, print_json

__all__ = ["monitor"]

_DONE = ("finished",)


def monitor(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or of many runs.")],
    once: Annotated[bool, typer.Option("--once", help="Show one picture and leave.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    json: Json = False,
) -> None:
    """Watch runs while they go: progress, loss, speed, memory and the last events."""
    from ..jobs.monitor import Monitor

    try:
        watched = Monitor(runs)
        if json:
            _print_lines(watched, interval, once=once)
        elif once or not sys.stdout.isatty():
            _print_frames(watched, interval, once=once)
        else:
            _live(watched, interval)
    except KeyboardInterrupt:
        return  # to stop looking is no interruption of work


def _ended(found: list[dict[str, Any]]) -> bool:
    return all(run["state"] in _DONE for run in found)


def _print_lines(watched: Any, interval: float, *, once: bool) -> None:
    """One object a run, without its curves."""
    while True:
        found = watched.look()
        for run in found:
            print_json({name: value for name, value in run.items() if name not in ("losses", "validations")})
        if once or _ended(found):
            return
        time.sleep(interval)


def _print_frames(watched: Any, interval: float, *, once: bool) -> None:
    """Plain pictures below each other, for pipes."""
    from rich.console import Console

    from .monitor_view import frame

    console = Console(highlight=False, soft_wrap=True)
    while True:
        found = watched.look()
        for line in frame(found, console.width, None, ascii_only=console.options.ascii_only):
            console.print(line)
        if once or _ended(found):
            return
        console.print()
        time.sleep(interval)


def _live(watched: Any, interval: float) -> None:
    """One picture that changes in its place; it stays when all runs have finished."""
    from rich.console import Console, Group
    from rich.live import Live

    from .monitor_view import frame

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            found = watched.look()
            lines = frame(found, console.width, console.height - 1, ascii_only=console.options.ascii_only)
            live.update(Group(*lines), refresh=True)
            if _ended(found):
                return
            time.sleep(interval)
