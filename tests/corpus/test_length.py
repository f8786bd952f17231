from __future__ import annotations

import pytest
from corpus_helpers import document

from maskwright.corpus.document import Drop
from maskwright.corpus.length import length_step


@pytest.mark.parametrize("text", ["abc", "abcde", "字字字"])
def test_keeps_what_is_in_range(text):
    original = document(text)
    assert length_step(3, 5)(original) is original


def test_drops_with_the_length():
    step = length_step(3, 5)
    assert step(document("ab")) == Drop("too_short", "2 characters")
    assert step(document("abcdef")) == Drop("too_long", "6 characters")


def test_no_upper_limit():
    original = document("x" * 100_000)
    assert length_step(1, None)(original) is original
