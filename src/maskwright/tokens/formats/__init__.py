"""Input formats: what a sample is made of. One file a format, after the paper's table of them."""

from .checking import check_samples
from .config import FormatConfig, FormatName
from .opening import SourceOpener, open_format
from .samples import Cut, Order, Pieces, SourceSamples, TooSmall, ranges

__all__ = [
    "Cut",
    "FormatConfig",
    "FormatName",
    "Order",
    "Pieces",
    "SourceOpener",
    "SourceSamples",
    "TooSmall",
    "check_samples",
    "open_format",
    "ranges",
]
