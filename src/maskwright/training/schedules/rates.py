"""Learning rates as pure functions of the step, or of the share of a time budget that is spent.

Nothing is kept between steps, so a run that is resumed has the rates of one that never stopped. By
time, the rate depends on the seconds spent alone: these come in as an argument, and whoever counts
them uses a clock that never jumps and adds up all starts of the run.
"""

from __future__ import annotations

import math

from .config import ScheduleConfig

__all__ = ["rate_at"]

# By time, the first step would have no rate, as nothing is spent before it.
_FIRST_RATE_SHARE = 1e-3


def rate_at(
    config: ScheduleConfig,
    highest: float,
    *,
    step: int,
    total_steps: int,
    seconds: float = 0.0,
    budget: float | None = None,
) -> float:
    """The rate of one step.

    Args:
        config: the shape.
        highest: rate at the end of the warm-up.
        step: number of the step, from 1 to `total_steps`.
        total_steps: steps of the run.
        seconds: spent before the step, over all starts of the run.
        budget: seconds of the run; None measures the run in steps.

    Returns:
        Learning rate; above zero at the first step, `final_share` of the highest after the last.

    Source: linear warm-up and decay as in RoBERTa (arXiv 1907.11692, section 2.4); by time as in
    Geiping and Goldstein, "Cramming" (arXiv 2212.14034, section 4.3).
    """
    if budget is None:
        warmup = round(config.warmup_share * total_steps)
        if step <= warmup:
            return highest * step / warmup
        return highest * _level(config, step - 1, total_steps, warmup, 1)
    spent = min(max(seconds, 0.0), budget)
    warmup_seconds = config.warmup_share * budget
    if spent < warmup_seconds:
        return highest * max(spent / warmup_seconds, _FIRST_RATE_SHARE)
    return highest * _level(config, spent, budget, warmup_seconds, 0)


def _level(config: ScheduleConfig, done: float, total: float, warmup: float, unit: float) -> float:
    """Share of the highest rate after the warm-up; `done`, `total` and `warmup` in steps or seconds.

    `unit` is one step where steps are counted. The shape falls from 1 at the end of the warm-up.
    """
    if config.name == "constant":
        return 1.0
    if config.name == "inverse-sqrt":
        # Source: Vaswani et al. 2017, section 5.3.
        return max(config.final_share, math.sqrt(max(warmup, unit) / (done + unit)))
    start = warmup
    if config.name == "wsd":
        start = max(warmup, total - config.decay_share * total)
    left = min(1.0, (total - done) / (total - start)) if total > start else 1.0
    return config.final_share + (1 - config.final_share) * _fall(config, max(0.0, left))


def _fall(config: ScheduleConfig, left: float) -> float:
    """What is left of the rate, from 1 to 0, when this share of the decay is still to come."""
    if config.name == "cosine":
        # Source: Loshchilov and Hutter, SGDR, arXiv 1608.03983, equation 5, without restarts.
        return 0.5 * (1 - math.cos(math.pi * left))
    if config.name == "wsd" and config.decay == "1-sqrt":
        # Source: Hägele et al., arXiv 2405.18392, section 3; the stable phase: Hu et al., MiniCPM,
        # arXiv 2404.06395, section 4.
        return 1 - math.sqrt(1 - left)
    return left
