"""Two runs of whole sentences, together at most a sequence, for next-sentence prediction.

A run of sentences of one document is cut in two at a random sentence. Half of the samples are such a
pair; in the others each half stands first and a run of another document follows it (`pairs.py`). A
share of the runs aims at a random shorter length. The runs are the same in every epoch; where they are
cut in two, which stay together and what else follows is drawn anew.

Deviation: a random second part is about as long as the part it stands for, where BERT fills the sequence
up, so that the length does not tell the label.

Source: "segment-pair" of RoBERTa (arXiv 1907.11692, section 4.2), which is BERT's (arXiv 1810.04805,
appendix A.2).
"""

from __future__ import annotations

import numpy as np

from ...core.keyed import derive_key, hash64, to_unit
from .borders import Borders, Units
from .samples import Cut, Int64

__all__ = ["extend_segment", "follow_segment_pair"]

# Not of a run's seed: the stored cuts serve every run.
_IS_SHORT, _SHORT_LENGTH = derive_key("segment-pair", "short"), derive_key("segment-pair", "length")
_SHORTEST = 2


def follow_segment_pair(units: Units, cut: Cut) -> Int64:
    """For each unit, which unit comes behind a run that begins with it; int64 of shape (U,).

    Args:
        units: of whole documents.
        cut: the length, and the share of short pairs.
    """
    is_short = to_unit(hash64(_IS_SHORT, units.starts)) < cut.format.short_share
    lengths = _SHORTEST + to_unit(hash64(_SHORT_LENGTH, units.starts)) * (cut.room - _SHORTEST + 1)
    aims = np.where(is_short, lengths.astype(np.int64), cut.room)
    found = np.searchsorted(units.ends, units.starts + aims, side="right")
    return np.minimum(np.maximum(found, np.arange(1, len(found) + 1)), units.stops)


def extend_segment(
    borders: Borders, starts: Int64, ends: Int64, wanted: Int64, room: Int64
) -> tuple[Int64, Int64]:
    """Make a random second part of whole sentences about as long as is wanted.

    It goes on behind its first unit. Where the document ends too early, it begins earlier instead.

    Args:
        borders: of the data.
        starts: position of the first token of its first unit; int64, (B,).
        ends: position behind the last token of that; int64, (B,).
        wanted: tokens that it should have, not more than there is room for; int64, (B,).
        room: tokens that it may have; int64, (B,).

    Returns:
        Position of its first token, and behind its last one; int64, two arrays of (B,).
    """
    first, last = borders.documents(starts)
    below, above = borders.around(starts + wanted, first, last)
    up = (above - starts <= room) & (above - starts - wanted < starts + wanted - below)
    stops = np.maximum(ends, np.where(up, above, below))
    early = last - starts < wanted
    below, above = borders.around(last - wanted, first, last)
    up = (last - below > room) | (above - (last - wanted) < last - wanted - below)
    begins = np.minimum(starts, np.where(up, above, below))
    return np.where(early, begins, starts), np.where(early, last, stops)
