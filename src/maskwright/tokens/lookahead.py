"""Telling a stream which samples its coming steps read.

Which samples those are is known without reading any, so what lies on object storage can be fetched some
steps before it is needed, also right after a resume. Cost: the order of each sample is looked up twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

__all__ = ["Lookahead", "StepRuns"]

# From where a step begins: the runs of samples that this process reads, and where the next step begins.
StepRuns = Callable[[int], tuple[Sequence[tuple[int, int]], int]]


class Lookahead:
    """Tells of each step once, a number of steps before it.

    Args:
        steps: how many steps to tell of, the next one counted; 0 tells of none.
        runs: what a step reads.
        expect: is told.
    """

    def __init__(
        self, steps: int, runs: StepRuns, expect: Callable[[Sequence[tuple[int, int]]], None]
    ) -> None:
        self._steps, self._runs, self._expect = steps, runs, expect
        self._told: deque[int] = deque()
        self._next = 0

    def at(self, consumed: int) -> None:
        """Tell of the steps from a place on, as far as they were not told of yet.

        Args:
            consumed: where the next step begins, in samples from the start of training.
        """
        if consumed not in self._told:  # the beginning, or a resume
            self._told.clear()
            self._next = consumed
        while self._told and self._told[0] < consumed:
            self._told.popleft()
        while len(self._told) < self._steps:
            runs, behind = self._runs(self._next)
            self._told.append(self._next)
            self._next = behind
            self._expect(runs)
