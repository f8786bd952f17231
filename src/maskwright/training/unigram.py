"""The loss of guessing by token frequency alone: what a language model has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..tokens.shards import SourceTokens, TokenData

__all__ = ["mixture_counts", "unigram_loss"]

# Tokens of a source from which its frequencies are taken, in pieces from all over it.
_SAMPLE_TOKENS = 1 << 22
_PIECES = 64


def mixture_counts(training: TokenData, sample_tokens: int = _SAMPLE_TOKENS) -> npt.NDArray[np.float64]:
    """How often each id occurs in an epoch of the training mixture.

    The stored counts know no mixture. Where every source occurs equally often they are the answer;
    otherwise the frequencies of each source are read from its shards.

    Args:
        training: the training split.
        sample_tokens: tokens read of each source at most, evenly spread over it. From four million
            on, the error is far below what the smoothing of rare ids does.

    Returns:
        Occurrences by id; float64 of shape (V,).

    Raises:
        ShardError: a file is missing or damaged.
    """
    counts = training.token_counts().astype(np.float64)
    if len({source.repeats for source in training.sources if source.num_tokens}) <= 1:
        return counts
    total = np.zeros_like(counts)
    for source in training.sources:
        if source.num_tokens and source.repeats > 0:
            found = _counts_of(training, source, sample_tokens, len(counts))
            total += found * (source.num_tokens * source.repeats / found.sum())
    return total


def _counts_of(
    training: TokenData, source: SourceTokens, sample_tokens: int, vocab_size: int
) -> npt.NDArray[np.float64]:
    if source.num_tokens <= sample_tokens:
        starts, length = [0], source.num_tokens
    else:
        length = max(1, sample_tokens // _PIECES)
        starts = np.linspace(0, source.num_tokens - length, _PIECES).astype(int).tolist()
    counts = np.zeros(vocab_size, np.int64)
    for start in starts:
        counts += np.bincount(training.tokens(source.first + start, length), minlength=vocab_size)
    return counts.astype(np.float64)


def unigram_loss(
    counts: npt.NDArray[Any], labels: Iterable[npt.NDArray[np.int64]], special_ids: tuple[int, ...]
) -> float:
    """Mean negative log probability of labels under add-one smoothed training frequencies.

    Args:
        counts: occurrences of every id in training, of shape (V,).
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
