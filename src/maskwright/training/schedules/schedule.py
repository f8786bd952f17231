"""The schedule of a run as the loop asks for it: rate, end, share done."""

from __future__ import annotations

import math

from .config import ScheduleConfig, warn_of_ignored
from .rates import rate_at

__all__ = ["Schedule"]


class Schedule:
    """Rates and end of one run, in steps or, with `config.budget_seconds`, in time.

    Everywhere `seconds` are those spent by training so far, over all starts of the run, measured
    with a monotonic clock.

    Args:
        config: the shape; what it ignores is said in the log.
        highest: learning rate at the end of the warm-up.
        total_steps: steps of the run; without meaning where there is a budget of time.
    """

    def __init__(self, config: ScheduleConfig, highest: float, total_steps: int) -> None:
        warn_of_ignored(config)
        self.config, self.highest, self.total_steps = config, highest, total_steps

    @property
    def budget_seconds(self) -> float | None:
        """Time that the run may take; None where steps are counted."""
        return self.config.budget_seconds

    def rate(self, step: int, seconds: float) -> float:
        """Learning rate of step `step`, counted from 1, when `seconds` were spent before it."""
        return rate_at(
            self.config,
            self.highest,
            step=step,
            total_steps=self.total_steps,
            seconds=seconds,
            budget=self.budget_seconds,
        )

    def done(self, step: int, seconds: float) -> bool:
        """Whether the run has ended after `step` steps and `seconds`."""
        return self.share(step, seconds) >= 1

    def share(self, step: int, seconds: float) -> float:
        """Share of training that is done after `step` steps and `seconds`, from 0 to 1."""
        if self.budget_seconds is None:
            return min(1.0, step / self.total_steps)
        return min(1.0, max(0.0, seconds / self.budget_seconds))

    def steps_left_estimate(self, step: int, seconds: float) -> int | None:
        """Steps still to come; by time they are guessed from the mean step so far.

        Returns:
            None where nothing can be guessed yet.
        """
        if self.budget_seconds is None:
            return max(0, self.total_steps - step)
        if step == 0 or seconds <= 0:
            return None
        return max(0, math.ceil((self.budget_seconds - seconds) * step / seconds))
