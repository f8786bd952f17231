"""Whole sentences, one after the other, until the next would not fit; over the ends of documents.

The `</s>` that closes a document inside a sample stays as the separator; where a sample ends with a
document, the sample's own `</s>` stands for it. The cuts are the same in every epoch, as in fairseq:
what an epoch brings anew is the order, and the masks.

Source: "full-sentences" of RoBERTa (arXiv 1907.11692, section 4.2).
"""

from __future__ import annotations

import numpy as np

from .borders import Units
from .samples import Cut, Int64

__all__ = ["follow_full_sentences"]


def follow_full_sentences(units: Units, cut: Cut) -> Int64:
    """For each unit, which unit comes behind a sample that begins with it; int64 of shape (U,).

    Args:
        units: of adjacent documents.
        cut: the length.
    """
    return np.searchsorted(units.ends, units.starts + cut.room, side="right")
