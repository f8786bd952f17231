"""Two single sentences for next-sentence prediction.

The sentences of a document are taken two by two. Half of the samples are such a pair; in the others
each of the two stands first and a sentence of another document follows it (`pairs.py`). Samples are
short, so a step takes more of them (`count_for_budget`).

Source: "sentence-pair" of RoBERTa (arXiv 1907.11692, section 4.2).
"""

from __future__ import annotations

import numpy as np

from .borders import Borders, Units
from .samples import Cut, Int64

__all__ = ["follow_sentence_pair", "keep_sentence"]


def follow_sentence_pair(units: Units, cut: Cut) -> Int64:
    """For each unit, which unit comes behind a pair that begins with it; int64 of shape (U,).

    Args:
        units: of whole documents.
        cut: not needed; two units fit in any case.
    """
    return np.minimum(np.arange(2, len(units.starts) + 2), units.stops)


def keep_sentence(
    borders: Borders, starts: Int64, ends: Int64, wanted: Int64, room: Int64
) -> tuple[Int64, Int64]:
    """A random second part is one unit; arguments and result as for `extend_segment`."""
    return starts, ends
