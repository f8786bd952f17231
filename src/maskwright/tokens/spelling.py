"""How many bytes of text each id of a byte-level vocabulary stands for.

With this table the ids of a document can be laid beside its text without encoding it again: for the
ends of sentences and for statistics. It is made once a vocabulary, in tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Spelling", "read_spelling"]


class Spelling(NamedTuple):
    """What the ids spell.

    Attributes:
        lengths: UTF-8 bytes of each id, 0 for special ones; int64 of shape (V,). None where ids do
            not spell the text byte by byte.
        is_single_byte: whether an id is one byte of a character of several, or a byte that a
            vocabulary falls back to; bool, (V,).
    """

    lengths: npt.NDArray[np.int64] | None
    is_single_byte: npt.NDArray[np.bool_]


def read_spelling(
    definition: Mapping[str, Any], entries: Mapping[str, int], special_ids: Iterable[int], size: int
) -> Spelling:
    """Read what the ids of a vocabulary spell.

    Args:
        definition: content of its `tokenizer.json`.
        entries: ids by entry.
        special_ids: ids that spell nothing.
        size: V, number of ids.
    """
    is_single_byte = np.zeros(size, np.bool_)
    if not is_byte_level(definition):
        for token, number in entries.items():
            is_single_byte[number] = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        return Spelling(None, is_single_byte)
    lengths, alphabet = np.zeros(size, np.int64), byte_alphabet()
    for token, number in entries.items():
        if all(character in alphabet for character in token):
            lengths[number] = len(token)
            is_single_byte[number] = len(token) == 1 and alphabet[token] >= 0x80
        else:  # added as it is written
            lengths[number] = len(token.encode())
    lengths[list(special_ids)] = 0
    return Spelling(lengths, is_single_byte)


def is_byte_level(definition: Mapping[str, Any]) -> bool:
    """Whether a vocabulary is BPE over bytes, each written as one printable character."""
    splitter = definition.get("pre_tokenizer") or {}
    steps = [splitter, *splitter.get("pretokenizers", ())]
    return definition["model"]["type"] == "BPE" and any(step.get("type") == "ByteLevel" for step in steps)


@cache
def byte_alphabet() -> Mapping[str, int]:
    """The byte behind each character of a byte-level vocabulary.

    Printable bytes of Latin-1 stand for themselves, the others follow from U+0100 on, in order.

    Source: Radford et al. 2019 (GPT-2), released encoder.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [number for number in range(256) if number not in printable]
    shown = {number: chr(number) for number in printable}
    shown |= {number: chr(0x100 + place) for place, number in enumerate(others)}
    return {character: number for number, character in shown.items()}
