"""What watches a run: the metrics file, TensorBoard, lines for people, and optional trackers."""

from .fields import memory_fields, padding_share
from .hook import Hook, Record
from .json_lines import JsonLines
from .log_lines import LogLines
from .standard import standard_hooks
from .tensorboard import TensorBoard
from .tracking import TrackingConfig, tracking_hooks

__all__ = [
    "Hook",
    "JsonLines",
    "LogLines",
    "Record",
    "TensorBoard",
    "TrackingConfig",
    "memory_fields",
    "padding_share",
    "standard_hooks",
    "tracking_hooks",
]
