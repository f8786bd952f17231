"""`maskwright prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .common import job_command

__all__ = ["prepare"]

HEADLINE = (
    "output",
    "documents_read",
    "documents_kept",
    "drops",
    "vocab_size",
    "train_tokens",
    "bytes_per_token",
)


def _load() -> tuple[Any, Any]:
    from ..jobs.prepare import PrepareConfig, prepare_data

    return PrepareConfig, prepare_data


prepare = job_command(
    "prepare",
    "Raw text to clean documents, a tokenizer and token shards.",
    _load,
    HEADLINE,
    lambda recipe: Path("data") / (recipe or "local-docs"),
)
