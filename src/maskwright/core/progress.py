"""Progress of long work: what is done, the rate, the time left. Silent when nobody is watching.

Everything goes to stderr, so that stdout stays free for results. When stderr is not a terminal,
bars are off; what matters is logged as lines instead.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["progress", "track"]

ItemT = TypeVar("ItemT")
Advance = Callable[[float], None]


@contextlib.contextmanager
def progress(label: str, total: float | None, unit: str) -> Iterator[Advance]:
    """Show a bar with count, rate and time left while the block runs.

    Args:
        label: what is being done, two or three words.
        total: how many units there are; None when nobody knows.
        unit: name of the unit, in the plural.

    Yields:
        A function that is told how many more units are done.
    """
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed:,.0f}" + (f"/{total:,.0f}" if total else "") + f" {unit}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label, total=total, rate="")

        def advance(amount: float) -> None:
            bars.advance(task, amount)
            speed = bars.tasks[0].finished_speed or bars.tasks[0].speed
            bars.update(task, rate=f"{speed:,.0f}/s" if speed else "")

        yield advance


def track(items: Iterable[ItemT], label: str, total: int | None, unit: str) -> Iterator[ItemT]:
    """Pass items through and show how far along they are; arguments as for `progress`."""
    with progress(label, total, unit) as advance:
        for item in items:
            yield item
            advance(1)
