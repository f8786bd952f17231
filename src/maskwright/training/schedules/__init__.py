"""Learning rates, sizes of batches and the end of training, as pure functions."""

from .batch_warmup import BatchWarmup
from .config import ScheduleConfig
from .durations import parse_duration
from .rates import rate_at
from .schedule import Schedule

__all__ = ["BatchWarmup", "Schedule", "ScheduleConfig", "parse_duration", "rate_at"]
