"""What the processes of a run agree on before and after a step.

Two exchanges of a few numbers a step: how much there is to compute, and what came out of it and
whether somebody was asked to stop. Everything that decides how the run goes on passes here, so that
all processes decide the same. And once, before the first step, whether all see the folder of the run.
"""

from __future__ import annotations

import contextlib
import platform
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import StorageError
from ..core.files import TEMPORARY_MARK, write_text
from ..parallel.world import World

__all__ = [
    "DataAwayError",
    "StepSize",
    "agree_on_folder",
    "agree_on_reason",
    "agree_on_size",
    "report_missing_data",
    "signal_name",
]

# A network file system may show a new file some seconds late.
_LOOKS, _SECONDS_BETWEEN_LOOKS = 20, 0.5
# What a process says in place of the number of its micro-batches.
_NO_DATA = -1.0


class DataAwayError(Exception):
    """A process could not read what it needs for this step, so there is none.

    Args:
        rank: its number.
    """

    def __init__(self, rank: int) -> None:
        super().__init__(f"rank {rank} could not read its data")
        self.rank = rank


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

    Raises:
        DataAwayError: a process reported that it has no data.
    """
    mine = list(batches)
    if not mine:
        assert filler is not None
        mine.append(filler())
    names = sorted(mine[0].targets)
    counts = [sum(batch.targets[name] for batch in mine) for name in names]
    rows = world.exchange([len(mine), *counts])
    _all_have_data(rows)
    totals = {
        name: max(1, int(sum(rows[rank][1 + index] for rank in world.leaders)))
        for index, name in enumerate(names)
    }
    most = int(max(row[0] for row in rows)) if equally_many else len(mine)
    while len(mine) < most:
        assert filler is not None
        mine.append(filler())
    return StepSize(totals, mine)


def report_missing_data(world: World, num_losses: int) -> None:
    """Say, while others agree on the size of a step, that this process cannot take part.

    Args:
        world: the processes.
        num_losses: how many losses the others count targets of.

    Raises:
        DataAwayError: always, of the first process that has no data.
    """
    _all_have_data(world.exchange([_NO_DATA, *[0.0] * num_losses]))


def _all_have_data(rows: Sequence[Sequence[float]]) -> None:
    for rank, row in enumerate(rows):
        if row[0] == _NO_DATA:
            raise DataAwayError(rank)


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


def agree_on_folder(
    world: World, folder: Path, pause: Callable[[float], object] = time.sleep, host: str | None = None
) -> None:
    """Make sure that the folder of the run is one and the same for all processes.

    Rank 0 leaves a small file in it, and the others look for that.

    Args:
        world: the processes.
        folder: of the run; rank 0 has made it.
        pause: waits for some seconds.
        host: name of this machine; None asks for it.

    Raises:
        StorageError: some do not see it, or rank 0 cannot write there.
    """
    if world.size == 1:
        return
    # Whoever looks into the folder takes a file of this name for nobody's work.
    token = folder / world.from_main(f".shared{TEMPORARY_MARK}{uuid.uuid4().hex}" if world.is_main else None)
    world.on_main(lambda: write_text(token, "all processes must see this\n"))
    found = world.gather((host or platform.node(), _sees(token, pause)))
    if world.is_main:
        with contextlib.suppress(OSError):
            token.unlink()
    blind: dict[str, list[int]] = {}
    for rank, (name, sees) in enumerate(found):
        if not sees:
            blind.setdefault(name, []).append(rank)
    if blind:
        who = "; ".join(
            f"{name} (rank{'s' * (len(ranks) > 1)} {_runs(ranks)})" for name, ranks in blind.items()
        )
        raise StorageError(
            f"{folder.absolute()}: is another folder on {who} than on {found[0][0]} (rank 0); put the output "
            "on storage that all machines share, and name it by the same path on each"
        )


def _sees(path: Path, pause: Callable[[float], object]) -> bool:
    for look in range(_LOOKS):
        if look:
            pause(_SECONDS_BETWEEN_LOOKS)
        with contextlib.suppress(OSError):
            if path.exists():
                return True
    return False


def _runs(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: `1 to 7, 9`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
