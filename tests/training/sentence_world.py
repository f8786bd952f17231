"""The tiny world with ends of sentences, for the input formats that need them."""

from __future__ import annotations

from pathlib import Path

import maskwright
import tiny_world


def prepare_sentences(folder: Path, documents: int = 90) -> Path:
    """A finished data folder whose shards know where sentences end."""
    corpus = tiny_world.write_corpus(folder / "corpus.jsonl", documents)
    values = {**tiny_world.prepare_values(corpus), "sentences": True}
    maskwright.prepare(values, output=folder / "data")
    return folder / "data"
