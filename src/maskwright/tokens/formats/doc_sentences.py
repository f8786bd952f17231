"""Whole sentences of one document, until the next would not fit or the document ends.

Samples at the ends of documents are shorter, so a step takes more of them (`count_for_budget`). The
cuts are the same in every epoch, as in fairseq.

Source: "doc-sentences" of RoBERTa (arXiv 1907.11692, section 4.2).
"""

from __future__ import annotations

import numpy as np

from .borders import Units
from .full_sentences import follow_full_sentences
from .samples import Cut, Int64

__all__ = ["follow_doc_sentences"]


def follow_doc_sentences(units: Units, cut: Cut) -> Int64:
    """For each unit, which unit comes behind a sample that begins with it; int64 of shape (U,).

    Args:
        units: of whole documents.
        cut: the length.
    """
    return np.minimum(follow_full_sentences(units, cut), units.stops)
