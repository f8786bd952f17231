"""How the learning rate rises and falls, and when training ends."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ...core.config import Config
from ...core.log import get_logger
from .durations import parse_duration

__all__ = ["ScheduleConfig", "warn_of_ignored"]

log = get_logger(__name__)
# Settings that only some shapes read.
_READ_BY = {
    "decay_share": ("wsd",),
    "decay": ("wsd",),
    "final_share": ("linear", "cosine", "wsd", "inverse-sqrt"),
}


class ScheduleConfig(Config):
    """How the learning rate rises and falls.

    All shares are of the steps of the run; with `budget_seconds` they are of that time instead.
    """

    name: Literal["linear", "cosine", "constant", "wsd", "inverse-sqrt"] = Field(
        "linear", description="shape after the warm-up; wsd stays constant and falls at the end"
    )
    warmup_share: float = Field(0.06, ge=0, le=1, description="share of all steps in which it rises")
    final_share: float = Field(0.0, ge=0, le=1, description="share of the highest rate left at the end")
    decay_share: float = Field(0.2, ge=0, le=1, description="share of all steps in which wsd falls")
    decay: Literal["linear", "1-sqrt"] = Field("linear", description="how wsd falls")
    budget_seconds: float | None = Field(
        None, gt=0, description="train for so long instead of for steps: seconds, or 24h, 1h30m, 90m"
    )

    @field_validator("budget_seconds", mode="before")
    @classmethod
    def _with_units(cls, value: Any) -> Any:
        return parse_duration(value)

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.name == "wsd" and self.warmup_share + self.decay_share > 1 + 1e-9:
            raise ValueError(
                f"warmup_share {self.warmup_share} and decay_share {self.decay_share} are more than the "
                "whole run; lower one of them"
            )
        if self.name == "inverse-sqrt" and self.warmup_share == 0:
            raise ValueError(
                "warmup_share is 0, but inverse-sqrt falls from the end of the warm-up; raise it"
            )
        return self


def warn_of_ignored(config: ScheduleConfig) -> None:
    """Say which settings do nothing for the chosen shape."""
    for name, shapes in _READ_BY.items():
        value = getattr(config, name)
        if config.name not in shapes and value != ScheduleConfig.model_fields[name].default:
            log.warning(
                "schedule.%s is ignored: schedule.name is %s; set schedule.name=%s",
                name,
                config.name,
                shapes[0],
            )
