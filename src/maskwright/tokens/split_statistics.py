"""What a split of a data folder holds, in numbers: its sources and how long its documents are."""

from __future__ import annotations

from typing import Any

import numpy as np

from .shards import TokenData

__all__ = ["split_statistics"]

_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def split_statistics(data: TokenData, max_documents: int = 1_000_000) -> dict[str, Any]:
    """Count the tokens of each source and measure the lengths of documents.

    Args:
        data: the split.
        max_documents: most documents whose length is looked at; of a larger split they are the first
            ones of evenly spread shards. Eight bytes are read for each.

    Returns:
        `tokens`, `documents`, `shards`; `sources`, by name `{tokens, documents, repeats, share}`
        with the share of the tokens of a training epoch; `documents_measured` and
        `document_tokens`, by quantile ("0" is the shortest, "1" the longest) the tokens of a
        document without its closing one.

    Raises:
        ShardError: a shard cannot be read.
    """
    filled = [number for number, shard in enumerate(data.shards) if shard.num_documents]
    step = max(1, -(-data.num_documents // max_documents))
    chosen = filled[::step]
    limit = max_documents if step == 1 else max(1, max_documents // len(chosen))
    lengths = np.concatenate(
        [np.empty(0, np.int64), *(data.document_lengths(number, limit) for number in chosen)]
    )
    quantiles = np.quantile(lengths, _QUANTILES, method="lower").tolist() if len(lengths) else []
    return {
        "tokens": data.num_tokens,
        "documents": data.num_documents,
        "shards": len(data.shards),
        "sources": _sources(data),
        "documents_measured": len(lengths),
        "document_tokens": {f"{q:g}": int(value) for q, value in zip(_QUANTILES, quantiles, strict=False)},
    }


def _sources(data: TokenData) -> dict[str, dict[str, Any]]:
    documents: dict[str, int] = {}
    for shard in data.shards:
        documents[shard.source] = documents.get(shard.source, 0) + shard.num_documents
    epoch = sum(source.num_tokens * source.repeats for source in data.sources)
    return {
        source.name: {
            "tokens": source.num_tokens,
            "documents": documents[source.name],
            "repeats": source.repeats,
            "share": source.num_tokens * source.repeats / epoch if epoch else 0.0,
        }
        for source in data.sources
    }
