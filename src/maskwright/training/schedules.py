"""Learning rates as pure functions of the step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..core.config import Config

__all__ = ["ScheduleConfig", "learning_rate"]


class ScheduleConfig(Config):
    """How the learning rate rises and falls."""

    name: Literal["linear", "constant"] = Field("linear", description="shape after the warm-up")
    warmup_share: float = Field(0.06, ge=0, le=1, description="share of all steps in which it rises")
    final_share: float = Field(0.0, ge=0, le=1, description="share of the highest rate left at the end")


def learning_rate(config: ScheduleConfig, highest: float, step: int, total_steps: int) -> float:
    """The rate of one step.

    Args:
        config: the shape.
        highest: rate at the end of the warm-up.
        step: number of the step, from 1 to `total_steps`.
        total_steps: steps of the run.

    Returns:
        Learning rate; above zero at the first step, `final_share` of the highest after the last.

    Source: linear warm-up and decay as in RoBERTa (arXiv 1907.11692, section 2.4).
    """
    warmup = round(config.warmup_share * total_steps)
    if step <= warmup:
        return highest * step / warmup
    if config.name == "constant":
        return highest
    left = (total_steps - step + 1) / max(1, total_steps - warmup)
    return highest * (config.final_share + (1 - config.final_share) * left)
