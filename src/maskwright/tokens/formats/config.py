"""Which input format samples have, as a run's config says it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...core.config import Config

__all__ = ["FormatConfig", "FormatName"]

FormatName = Literal["windows", "full-sentences", "doc-sentences", "segment-pair", "sentence-pair"]


class FormatConfig(Config):
    """How the data is cut into samples."""

    name: FormatName = Field(
        "windows",
        description="windows: tokens, cut anywhere; full-sentences: whole sentences, over the ends of "
        "documents; doc-sentences: whole sentences of one document; segment-pair, sentence-pair: two parts, "
        "for next-sentence prediction",
    )
    short_share: float = Field(
        0.1, ge=0, le=1, description="segment-pair: share of the pairs that are made shorter at random"
    )
    steps_by_tokens: bool | None = Field(
        None,
        description="whether a step takes as many samples as fill its tokens, instead of a fixed number; "
        "default: for doc-sentences and sentence-pair",
    )

    @property
    def is_pair(self) -> bool:
        """Whether a sample has two parts."""
        return self.name in ("segment-pair", "sentence-pair")

    @property
    def fills_tokens(self) -> bool:
        """Whether a step takes as many samples as fill its tokens."""
        if self.steps_by_tokens is not None:
            return self.steps_by_tokens
        return self.name in ("doc-sentences", "sentence-pair")
