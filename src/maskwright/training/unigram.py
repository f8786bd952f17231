"""The loss of guessing by token frequency alone: what a language model has to beat."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["unigram_loss"]


def unigram_loss(
    counts: npt.NDArray[np.int64], labels: Iterable[npt.NDArray[np.int64]], special_ids: tuple[int, ...]
) -> float:
    """Mean negative log probability of labels under add-one smoothed training frequencies.

    Args:
        counts: occurrences of every id in the training split, int64 of shape (V,).
        labels: batches of right ids.
        special_ids: ids that are never predicted and get no probability.

    Returns:
        Nats a token; 0 if there are no labels.
    """
    smoothed = counts.astype(np.float64) + 1
    smoothed[list(special_ids)] = 0
    total = np.log(smoothed.sum())
    loss, number = 0.0, 0
    for batch in labels:
        loss += float((total - np.log(smoothed[batch])).sum())
        number += len(batch)
    return loss / max(1, number)
