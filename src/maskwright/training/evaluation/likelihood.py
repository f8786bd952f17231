"""Pseudo-log-likelihood: how likely a masked language model finds a text, one hidden token at a time.

A text of L tokens gives L copies, each with another token masked, so the cost grows with the square
of the length. Copies of all texts are laid end to end up to a budget of tokens, without padding, and
only the masked position goes through the vocabulary. Memory follows the budget, not the texts.

Legend: T texts, L tokens of a text, P scored places of a text, R copies of a batch, N tokens of a
batch, D hidden, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...core.errors import DataError
from ...core.progress import progress
from ...model.heads import MaskedLM
from ...model.layout import Layout
from ...tokens.tokenizer import Tokenizer

__all__ = [
    "BATCH_TOKENS",
    "EncodedText",
    "PseudoLikelihood",
    "encode_texts",
    "encode_windows",
    "pseudo_log_likelihood",
    "split_long",
]

BATCH_TOKENS = 1 << 14
# Logits that are held in fp32 at a time.
_CHUNK_VALUES = 1 << 22
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedText:
    """A text as the model sees it.

    Attributes:
        ids: token ids, special tokens in place; int64 of shape (L,).
        scored: which of them are scored; booleans of shape (L,).
        words: number of the word that each token belongs to, of shape (L,); None scores each token
            with all the others visible.
    """

    ids: _Ints
    scored: npt.NDArray[np.bool_]
    words: _Ints | None = None


@dataclass(frozen=True)
class PseudoLikelihood:
    """What a model says of some texts.

    Attributes:
        sums: summed log probabilities of each text in nats; float64 of shape (T,).
        counts: scored tokens of each text; int64 of shape (T,).
    """

    sums: npt.NDArray[np.float64]
    counts: _Ints

    @property
    def loss(self) -> float:
        """Mean negative log probability of a token over all texts, in nats; 0 without a token."""
        return -float(self.sums.sum()) / max(1, int(self.counts.sum()))

    @property
    def perplexity(self) -> float:
        """Pseudo-perplexity over all texts (Salazar et al. 2020, section 2)."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True)
class _Copies:
    """Copies of one text, each with one place to predict; `ids` has shape (R, L)."""

    text: int
    ids: _Ints
    places: _Ints
    labels: _Ints


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], *, words: bool = False) -> list[EncodedText]:
    """Turn texts into ids with their special tokens, ready to be scored.

    Args:
        tokenizer: of the model.
        texts: each becomes one sequence.
        words: tell which tokens belong to one word, as the tokenizer cuts words.

    Raises:
        DataError: the words of a text cannot be told.
    """
    ids, counts = tokenizer.encode_batch(texts)
    rows = np.split(ids.astype(np.int64), np.cumsum(counts)[:-1]) if len(counts) else []
    encoded = []
    for text, row in zip(texts, rows, strict=True):
        full = np.concatenate([[tokenizer.bos_id], row, [tokenizer.eos_id]]).astype(np.int64)
        numbers = _words(tokenizer, text, row) if words else None
        encoded.append(EncodedText(full, ~np.isin(full, tokenizer.special_ids), numbers))
    return encoded


def encode_windows(tokenizer: Tokenizer, windows: Iterable[_Ints]) -> list[EncodedText]:
    """The same for sequences of ids that have their special tokens already; those are not scored."""
    return [EncodedText(ids, ~np.isin(ids, tokenizer.special_ids)) for ids in windows]


def _words(tokenizer: Tokenizer, text: str, ids: _Ints) -> _Ints:
    found = tokenizer.reference.encode(text, add_special_tokens=False)
    if found.ids != ids.tolist():
        raise DataError(
            f"{text[:60]!r}: spells out a special token, so its words cannot be told; "
            "remove it, or set scoring=token"
        )
    # Both special tokens are words of their own.
    return np.array([-1, *found.word_ids, -2], np.int64)


def split_long(texts: Iterable[EncodedText], longest: int) -> list[EncodedText]:
    """Cut texts that the model does not take into pieces that it does.

    Args:
        texts: with one special token at each end.
        longest: tokens of a piece at most, the special tokens included.

    Returns:
        The pieces in order, each with the special tokens of its text at its ends.
    """
    pieces = []
    for text in texts:
        inner = range(1, max(2, len(text.ids) - 1), longest - 2)
        if len(inner) <= 1:
            pieces.append(text)
            continue
        for start in inner:
            middle = range(start, min(start + longest - 2, len(text.ids) - 1))
            rows = np.array([0, *middle, len(text.ids) - 1])
            words = None if text.words is None else text.words[rows]
            pieces.append(EncodedText(text.ids[rows], text.scored[rows], words))
    return pieces


@torch.no_grad()
def pseudo_log_likelihood(
    model: MaskedLM, texts: Sequence[EncodedText], mask_id: int, batch_tokens: int = BATCH_TOKENS
) -> PseudoLikelihood:
    """Score texts with every token hidden in turn.

    With `words`, the later tokens of the hidden token's word are hidden too: otherwise the rest of
    a rare word gives its beginning away, and the word looks likelier than it is.

    Args:
        model: on any device, in any precision; dropout is off. Sums run in fp32 or wider.
        texts: from `encode_texts`; none longer than the model takes.
        mask_id: id of `<mask>`.
        batch_tokens: tokens computed at a time; only memory and speed depend on it.

    Returns:
        Sums and counts by text.

    Source: Salazar et al., "Masked language model scoring", ACL 2020 (arXiv 1910.14659), section 2;
    with `words` Kauf and Ivanova, "A better way to do masked language model scoring", ACL 2023
    (arXiv 2305.10588), there PLL-word-l2r.
    """
    sums = np.zeros(len(texts), np.float64)
    counts = np.array([int(text.scored.sum()) for text in texts], np.int64)
    total = sum(int(count) * len(text.ids) for count, text in zip(counts, texts, strict=True))
    with progress("scoring texts", total, "tokens") as advance:
        for batch in _batches(texts, mask_id, batch_tokens):
            numbers = np.concatenate([np.full(len(copies.places), copies.text) for copies in batch])
            np.add.at(sums, numbers, _score(model, batch))
            advance(sum(copies.ids.size for copies in batch))
    return PseudoLikelihood(sums, counts)


def _batches(texts: Sequence[EncodedText], mask_id: int, batch_tokens: int) -> Iterator[list[_Copies]]:
    """Copies of all texts in batches, by length: attention is quickest on sequences that are alike."""
    waiting: list[_Copies] = []
    held = 0
    for number in sorted(range(len(texts)), key=lambda number: len(texts[number].ids)):
        for copies in _copies(number, texts[number], mask_id, batch_tokens):
            if waiting and held + copies.ids.size > batch_tokens:
                yield waiting
                waiting, held = [], 0
            waiting.append(copies)
            held += copies.ids.size
    if waiting:
        yield waiting


def _copies(number: int, text: EncodedText, mask_id: int, batch_tokens: int) -> Iterator[_Copies]:
    places_P = np.flatnonzero(text.scored)
    step = max(1, batch_tokens // len(text.ids))
    for first in range(0, len(places_P), step):
        places_R = places_P[first : first + step]
        hidden_RL = np.arange(len(text.ids)) == places_R[:, None]
        if text.words is not None:
            later_RL = np.arange(len(text.ids)) > places_R[:, None]
            hidden_RL |= later_RL & (text.words == text.words[places_R, None]) & text.scored
        yield _Copies(number, np.where(hidden_RL, mask_id, text.ids), places_R, text.ids[places_R])


def _score(model: MaskedLM, batch: Sequence[_Copies]) -> npt.NDArray[np.float64]:
    """Log probabilities of the hidden tokens of all copies; float64 of shape (R,)."""
    device = model.head_bias.device
    lengths = [copies.ids.shape[1] for copies in batch for _ in copies.places]
    starts_R = np.cumsum([0, *lengths[:-1]])
    places_R = starts_R + np.concatenate([copies.places for copies in batch])
    ids_N = np.concatenate([copies.ids.reshape(-1) for copies in batch])
    hidden_ND = model.encoder(_tensor(ids_N, device), Layout(lengths, device))
    hidden_RD = hidden_ND.index_select(0, _tensor(places_R, device))
    labels_R = _tensor(np.concatenate([copies.labels for copies in batch]), device)
    step = max(1, _CHUNK_VALUES // model.config.vocab_size)
    found = [
        _log_probabilities(model, hidden_RD[first : first + step], labels_R[first : first + step])
        for first in range(0, len(labels_R), step)
    ]
    return torch.cat(found).double().cpu().numpy()


def _log_probabilities(model: MaskedLM, hidden_RD: Tensor, labels_R: Tensor) -> Tensor:
    logits_RV = model.logits(hidden_RD)
    logits_RV = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
    return logits_RV.gather(1, labels_R[:, None])[:, 0] - torch.logsumexp(logits_RV, -1)


def _tensor(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)
