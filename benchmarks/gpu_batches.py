"""The shapes and made-up batches that both sides of `bench_gpu.py` train on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

__all__ = ["NUM_BATCHES", "SHARE", "SIZES", "Shape", "make_batches", "shape_of"]

# Share of tokens that is masked, batches that take turns, and sequences of a batch by size.
SHARE = 0.15
NUM_BATCHES = 8
SIZES = {"large": 32, "base": 64}


@dataclass(frozen=True)
class Shape:
    """A model and a batch.

    Attributes:
        model: sizes in the words of `MODEL_SIZES`.
        vocab: entries of the vocabulary.
        batch: sequences of a step.
        length: tokens of a full sequence.
    """

    model: dict[str, int]
    vocab: int
    batch: int
    length: int


def shape_of(size: str, options: argparse.Namespace) -> Shape:
    """What to train: published shapes, or a small one to see that it works."""
    from maskwright.model.config import MODEL_SIZES

    if options.tiny:
        return Shape(MODEL_SIZES["tiny"], 1_000, 4, 32)
    return Shape(MODEL_SIZES[size], 50_265, SIZES[size], 512)


def make_batches(shape: Shape, *, documents: bool) -> list[SimpleNamespace]:
    """Batches of one shape, or of documents whose lengths add up to as many tokens.

    Lengths of documents are lognormal, about 200 tokens in the middle, cut at the sequence length.
    """
    generator = np.random.default_rng(1)
    batches = []
    for _ in range(NUM_BATCHES):
        lengths = [shape.length] * shape.batch
        if documents:
            drawn = np.exp(generator.normal(5.3, 0.8, 64 * shape.batch)) * shape.length / 512
            drawn = np.clip(drawn.astype(int), 4, shape.length)
            lengths = drawn[: int(np.searchsorted(np.cumsum(drawn), shape.batch * shape.length))].tolist()
        ids = generator.integers(5, shape.vocab - 1, sum(lengths))
        masked = generator.random(len(ids)) < SHARE
        seen = np.where(masked, shape.vocab - 1, ids)
        batches.append(SimpleNamespace(lengths=lengths, ids=ids, seen=seen, masked=masked))
    return batches
