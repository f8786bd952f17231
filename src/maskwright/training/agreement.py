"""What the processes of a run agree on before and after a step.

Two exchanges of a few numbers a step: how much there is to compute, and what came out of it and
whether somebody was asked to stop. Everything that decides how the run goes on passes here, so that
all processes decide the same.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..parallel.world import World

__all__ = ["StepSize", "agree_on_reason", "agree_on_size", "signal_name"]


@dataclass(frozen=True)
class StepSize:
    """How much one step is.

    Attributes:
        totals: targets of each loss over all processes, at least 1.
        batches: micro-batches of this process, filled up where others have more.
    """

    totals: dict[str, int]
    batches: list[Any]


def agree_on_size(
    world: World, batches: Sequence[Any], filler: Callable[[], Any] | None, *, equally_many: bool
) -> StepSize:
    """Count targets over all processes, and give each the number of micro-batches that it needs.

    Args:
        world: the processes.
        batches: micro-batches of this process; none where there are fewer samples than processes.
        filler: makes a micro-batch that counts nothing; needed with several processes.
        equally_many: whether each process must compute the same number; otherwise at least one.
    """
    mine = list(batches)
    if not mine:
        assert filler is not None
        mine.append(filler())
    names = sorted(mine[0].targets)
    counts = [sum(batch.targets[name] for batch in mine) for name in names]
    rows = world.exchange([len(mine), *counts])
    totals = {
        name: max(1, int(sum(rows[rank][1 + index] for rank in world.leaders)))
        for index, name in enumerate(names)
    }
    most = int(max(row[0] for row in rows)) if equally_many else len(mine)
    while len(mine) < most:
        assert filler is not None
        mine.append(filler())
    return StepSize(totals, mine)


def agree_on_reason(
    world: World, sums: Mapping[str, float], reason: str | None
) -> tuple[dict[str, float], str | None]:
    """Add losses up, and learn whether any process was asked to stop.

    Args:
        world: the processes.
        sums: of this process, by name.
        reason: name of the signal that this process got.

    Returns:
        Sums over all processes that see different samples, and the name of the signal.
    """
    names = sorted(sums)
    number = 0 if reason is None else int(signal.Signals[reason])
    rows = world.exchange([number, *(sums[name] for name in names)])
    totals = {name: sum(rows[rank][1 + index] for rank in world.leaders) for index, name in enumerate(names)}
    return totals, signal_name(int(max(row[0] for row in rows)))


def signal_name(number: int) -> str | None:
    """The name of a signal; None for 0."""
    return signal.Signals(number).name if number else None
