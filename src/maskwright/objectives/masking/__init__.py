"""Which tokens are predicted and what the model sees in their place: single tokens, whole words, spans."""

from .config import MaskingConfig
from .masker import FIXED_EPOCH, Expectation, Masked, Masker
from .unit import WordBorders

__all__ = ["FIXED_EPOCH", "Expectation", "Masked", "Masker", "MaskingConfig", "WordBorders"]
