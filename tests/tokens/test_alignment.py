"""Tokens beside their text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_texts import TEXTS

from maskwright.core.errors import DataError
from maskwright.tokens.alignment import code_points, token_characters
from maskwright.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tiny():
    return Tokenizer.train(TEXTS * 3, 320)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=("Cs",))) | st.sampled_from(TEXTS))
def test_every_token_begins_in_the_character_of_its_first_byte(tiny, text):
    ids = tiny.encode(text)
    character_of_byte = [place for place, character in enumerate(text) for _ in character.encode()]
    sizes = [len(bytes_of(tiny, number)) for number in ids.tolist()]
    firsts = [sum(sizes[:place]) for place in range(len(sizes))]
    assert token_characters(tiny, ids, text).tolist() == [character_of_byte[first] for first in firsts]


def bytes_of(tokenizer, number):
    """One printable character of an entry is one byte."""
    return tokenizer.reference.id_to_token(number)


def test_wordpiece_is_encoded_again():
    tokenizer = Tokenizer.train(["hello world 中文"] * 3, 200, "wordpiece")
    text = "Hello  中文 world"
    assert token_characters(tokenizer, tokenizer.encode(text), text).tolist() == [0, 7, 8, 10]


def test_other_ids(tiny):
    with pytest.raises(
        DataError, match="'ab': has 2 tokens, 3 were given; encode it with the same tokenizer"
    ):
        token_characters(tiny, tiny.encode("qxz"), "ab")


def test_code_points():
    assert code_points("a中\U00020000").tolist() == [0x61, 0x4E2D, 0x20000]
    assert code_points("").dtype == np.uint32
