"""How well a vocabulary fits each language: bytes per token, and how much falls into crumbs.

A language that the vocabulary has not learned shows in two numbers: entries for the unknown, and
tokens that are one byte of a longer character. Counting costs two look-ups a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .tokenizer import Tokenizer

__all__ = ["TokenStatistics"]

_KEYS = ("tokens", "bytes", "unknown", "single_byte")


class TokenStatistics:
    """Counts of tokens by language, which can be added up over processes.

    Args:
        tokenizer: what made the ids; None where counts are only merged.
    """

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._tokenizer = tokenizer
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, language: str, num_bytes: int, ids: npt.NDArray[Any]) -> None:
        """Count some text.

        Args:
            language: its code, or any name.
            num_bytes: UTF-8 bytes of the text.
            ids: its tokens without special ones; integers of shape (N,).
        """
        assert self._tokenizer is not None, "made for merging only"
        crumbs = self._tokenizer.spelling.is_single_byte[ids]
        unknown = np.count_nonzero(ids == self._tokenizer.unk_id)
        self._add(language, (len(ids), num_bytes, int(unknown), int(np.count_nonzero(crumbs))))

    def _add(self, language: str, numbers: tuple[int, ...]) -> None:
        counts = self._counts.setdefault(language, dict.fromkeys(_KEYS, 0))
        for key, number in zip(_KEYS, numbers, strict=True):
            counts[key] += number

    def merge(self, other: TokenStatistics) -> None:
        """Add the counts of another process."""
        for language, counts in other._counts.items():
            self._add(language, tuple(counts[key] for key in _KEYS))

    def state(self) -> dict[str, dict[str, int]]:
        """The counts as JSON values; `from_state` takes them back."""
        return {language: dict(counts) for language, counts in self._counts.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Mapping[str, int]]) -> Self:
        """Counts as `state` gave them; they can be merged and shown."""
        made = cls()
        for language, counts in state.items():
            made._add(language, tuple(counts[key] for key in _KEYS))
        return made

    def as_dict(self) -> dict[str, dict[str, float]]:
        """By language, most tokens first.

        Returns:
            `{language: {tokens, bytes_per_token, unknown_share, single_byte_share}}`; the shares are
            of the tokens. A single byte is one of a character of several, or one that the vocabulary
            falls back to; letters and signs of ASCII are no crumbs.
        """
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1]["tokens"], item[0]))
        return {
            language: {
                "tokens": counts["tokens"],
                "bytes_per_token": counts["bytes"] / max(1, counts["tokens"]),
                "unknown_share": counts["unknown"] / max(1, counts["tokens"]),
                "single_byte_share": counts["single_byte"] / max(1, counts["tokens"]),
            }
            for language, counts in ordered
        }
