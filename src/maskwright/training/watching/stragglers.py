"""Which rank keeps the others waiting: all ranks step together, so the slowest sets the pace."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["Stragglers"]


class Stragglers:
    """Finds a rank that computes longer than the others, record after record.

    Args:
        factor: a rank is slow when it computes more than so many times as long as the median.
        records: a rank is told of when it was slow in so many records in a row.
        least_seconds: shorter records are put together, as chance decides within milliseconds.
    """

    def __init__(self, factor: float = 1.3, records: int = 3, least_seconds: float = 1.0) -> None:
        self.factor, self.records, self.least_seconds = factor, records, least_seconds
        self._seconds: list[float] = []
        self._suspect, self._in_a_row = -1, 0
        self._told: int | None = None

    def look(self, seconds: Sequence[float]) -> tuple[dict[str, float], str | None]:
        """Compare the ranks in one record.

        Args:
            seconds: that each rank computed for itself since the last record, by rank.

        Returns:
            `slowest_rank` and `straggler_ratio` (slowest over median; of an even number the lower median,
            so that of two ranks one can be slow), nothing for one rank; and an event to tell, or None.
        """
        if len(seconds) < 2:
            return {}, None
        before = self._seconds or [0.0] * len(seconds)
        self._seconds = [old + new for old, new in zip(before, seconds, strict=True)]
        slowest = max(range(len(seconds)), key=self._seconds.__getitem__)
        median = statistics.median_low(self._seconds)
        ratio = self._seconds[slowest] / median if median > 0 else 1.0
        fields = {"slowest_rank": slowest, "straggler_ratio": ratio}
        if median < self.least_seconds:
            return fields, None
        self._seconds = []
        return fields, self._event(slowest, ratio)

    def _event(self, slowest: int, ratio: float) -> str | None:
        slow = slowest if ratio > self.factor else -1
        self._in_a_row = self._in_a_row + 1 if slow == self._suspect else 1
        self._suspect = slow
        if slow >= 0 and slow != self._told and self._in_a_row >= self.records:
            self._told = slow
            return (
                f"rank {slow} keeps the others waiting: it computes {ratio:.2f} times as long as the median "
                f"rank, {self._in_a_row} records in a row; look at its host"
            )
        if slow < 0 and self._told is not None:
            over, self._told = self._told, None
            return f"rank {over} no longer keeps the others waiting"
        return None
