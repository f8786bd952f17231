"""Where in its text each token begins, in characters.

Byte-level ids are laid beside the text by their lengths, without encoding it again; for other
vocabularies the slow reference encodes it once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import DataError
from .tokenizer import Tokenizer

__all__ = ["code_points", "token_characters"]


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The characters of a text as numbers; uint32, one a character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def token_characters(tokenizer: Tokenizer, ids: npt.NDArray[Any], text: str) -> npt.NDArray[np.int64]:
    """The character in which each token of a text begins.

    Args:
        tokenizer: what made the ids.
        ids: tokens of the whole text without special ones; integers of shape (N,).
        text: the text.

    Returns:
        Numbers of characters; int64, (N,), ascending. Tokens of one character may share it.

    Raises:
        DataError: the ids are not those of the text.
    """
    found = _from_bytes(tokenizer, ids, text)
    if found is None:
        found = tokenizer.token_starts(text)
    if len(found) != len(ids):
        raise DataError(
            f"{text[:60]!r}: has {len(found)} tokens, {len(ids)} were given; "
            "encode it with the same tokenizer"
        )
    return found


def _from_bytes(tokenizer: Tokenizer, ids: npt.NDArray[Any], text: str) -> npt.NDArray[np.int64] | None:
    """From the lengths of the ids; None where they do not spell the text."""
    lengths = tokenizer.spelling.lengths
    if lengths is None or not len(ids):
        return None
    ends = np.cumsum(lengths[ids])
    starts: npt.NDArray[np.int64] = ends - lengths[ids]
    if text.isascii():
        return starts if ends[-1] == len(text) else None
    points = code_points(text)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    characters = np.repeat(np.arange(len(points)), widths)
    return characters[starts] if ends[-1] == len(characters) else None
