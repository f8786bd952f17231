"""Words and maskers for the tests of masking: a row of tokens whose words and documents are known."""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from maskwright.objectives.masking import Masker, MaskingConfig

VOCABULARY, MASK, EOS = 500, 499, 2
SPECIAL = (0, 1, EOS, 3, MASK)


@dataclass(frozen=True)
class Text:
    """Tokens of documents laid end to end, each document closed by `</s>`.

    Attributes:
        ids: of the tokens, (N,).
        begins: whether a token begins a word, (N,).
        opens: whether a token opens a document, (N,).
    """

    ids: np.ndarray
    begins: np.ndarray
    opens: np.ndarray

    @property
    def positions(self):
        return np.arange(len(self.ids), dtype=np.int64)

    def starts(self, positions):
        return self._last(self.begins, positions)

    def document_starts(self, positions):
        return self._last(self.opens, positions)

    def _last(self, marks, positions):
        last = np.maximum.accumulate(np.where(marks, np.arange(len(marks)), 0))
        return np.where(positions < 0, -1, last[positions])

    def words(self):
        """First and last token (excluded) of each word, by document; the closing `</s>` is a word."""
        edges = [*np.flatnonzero(self.begins).tolist(), len(self.ids)]
        documents = []
        for first, end in itertools.pairwise(edges):
            if self.opens[first]:
                documents.append([])
            documents[-1].append((first, end))
        return documents


def make_text(document_lengths, seed=0, begin_share=0.6):
    """Random text whose documents have so many tokens before their `</s>`."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(np.asarray(document_lengths) + 1) - 1
    ids = rng.integers(4, MASK, ends[-1] + 1)
    begins = rng.random(len(ids)) < begin_share
    opens = np.zeros(len(ids), bool)
    ids[ends], begins[ends] = EOS, True
    opens[[0, *(ends[:-1] + 1)]] = True
    return Text(ids, begins | opens, opens)


def make_masker(words=None, seed=0, **settings):
    return Masker(MaskingConfig(**settings), seed, VOCABULARY, MASK, SPECIAL, words)


def as_torch(masked):
    """The arrays of a `Masked` as NumPy, after a look that they were tensors."""
    fields = (masked.selected, masked.seen, masked.eligible)
    assert all(isinstance(field, torch.Tensor) for field in fields)
    return [field.cpu().numpy() for field in fields]
