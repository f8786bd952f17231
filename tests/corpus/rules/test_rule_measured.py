from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_helpers import document

from maskwright.corpus.rules import measured
from maskwright.corpus.rules.measured import Measured, measure, share

# White space of several kinds, letters with and without ASCII, digits of two scripts, planes above 0.
MIXED = st.text(st.sampled_from("ab1 \t\n\u3000\u00a0é字𠀀٣_-😀\u2028"), max_size=60)
TEXTS = st.one_of(MIXED, st.text())


@given(TEXTS)
def test_words_are_those_of_split(text):
    words = text.split()
    found = Measured(text).words
    assert found.lengths.tolist() == [len(word) for word in words]
    assert found.num_alphabetic == sum(any(c.isalpha() for c in word) for word in words)
    hashes = found.hashes.tolist()
    assert all(
        (a == b) == (x == y)
        for a, x in zip(words, hashes, strict=True)
        for b, y in zip(words, hashes, strict=True)
    )


@given(TEXTS)
def test_characters_are_counted_as_python_sees_them(text):
    counts = Measured(text).counts
    assert counts.visible == sum(not c.isspace() for c in text)
    assert counts.digits == sum(c.isdecimal() for c in text)
    assert counts.letters >= counts.han
    assert counts.letters == sum(c.isalpha() or c == "\u3007" for c in text)
    assert len(Measured(text).characters) == counts.visible


def test_classes_agree_with_python_over_all_code_points():
    everything = [chr(code) for code in range(sys.maxunicode + 1)]
    counts = Measured("".join(everything)).counts
    assert counts.visible == sum(not c.isspace() for c in everything)
    assert counts.digits == sum(c.isdecimal() for c in everything)
    assert counts.letters == sum(c.isalpha() for c in everything) + 1  # and U+3007


def test_chinese_characters_are_those_of_the_blocks():
    assert Measured("漢字〇，。ab한かカ𠮷").counts.han == 4


@pytest.mark.parametrize("block", [8, 64])
@given(text=st.text(st.sampled_from("ab \n字"), max_size=200))
def test_blocks_do_not_show(block, text):
    if any(len(word) > block for word in text.split()):
        return
    whole = Measured(text)
    original = measured._BLOCK
    measured._BLOCK = block
    try:
        cut = Measured(text)
        assert cut.words.hashes.tolist() == whole.words.hashes.tolist()
        assert cut.words.num_alphabetic == whole.words.num_alphabetic
        assert cut.characters.hashes.tolist() == whole.characters.hashes.tolist()
        assert cut.counts == whole.counts
    finally:
        measured._BLOCK = original


def test_a_word_longer_than_a_block_counts_as_several():
    words = Measured("x" * 100_000 + " y").words
    assert words.lengths.tolist() == [65_536, 34_464, 1]


@given(TEXTS)
def test_lines_and_paragraphs_hold_every_visible_character(text):
    visible = "".join(text.split())
    found = Measured(text)
    assert "".join("".join(found.lines).split()) == visible
    assert "".join("".join(found.paragraphs).split()) == visible
    assert all(line == line.strip() and line for line in found.lines)


def test_paragraphs_stand_between_empty_lines():
    assert Measured("a\nb\n\nc\n  \n\nd").paragraphs == ["a\nb", "c", "d"]


def test_the_last_text_is_remembered():
    text = document("some words here").text
    first = measure(text)
    assert measure(text) is first
    other = measure("something else")
    assert other.text == "something else"
    assert measure(text) is not first


def test_a_share_of_nothing_is_nothing():
    assert share(3, 0) == 0.0
    assert share(1, 4) == 0.25
