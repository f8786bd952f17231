from __future__ import annotations

import numpy as np
import pytest
from dedup_helpers import TEXTS, plain_words
from hypothesis import given
from hypothesis import strategies as st

from maskwright.corpus.dedup import words as module
from maskwright.corpus.dedup.words import (
    TextWords,
    hash_lines,
    hash_words,
    rolling_hashes,
    word_strings,
)


def hashes_of(text):
    return hash_words([text]).hashes.tolist()


def plain_hash(codes):
    """The polynomial and the mixing by Python's integers: what is on disk must keep its meaning."""
    codes = map(ord, codes) if isinstance(codes, str) else codes
    value = sum(code * pow(0x8F2D6C1B93E7A4D5, place, 2**64) for place, code in enumerate(codes)) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ value >> shift) * factor % 2**64
    return value ^ value >> 31


@pytest.fixture(params=[1 << 16, 7, 1])
def block(request, monkeypatch):
    """The size of a block must not matter; words and lines reach over many of the small ones."""
    monkeypatch.setattr(module, "_BLOCK", request.param)
    module._powers.cache_clear()
    yield request.param
    module._powers.cache_clear()


def test_words_are_runs_of_letters_and_single_chinese_characters():
    text = "Don't STOP, 3.5x e\u0301té 你好ab ภาษา İx"
    expected = ["don", "t", "stop", "3", "5x", "e\u0301té", "你", "好", "ab", "ภ", "า", "ษ", "า", "ix"]
    assert word_strings(text) == expected


@given(TEXTS)
def test_word_strings_agree_with_plain_python(texts):
    for text in texts:
        assert word_strings(text) == plain_words(text)


@given(TEXTS)
def test_hashes_name_words(texts):
    words = hash_words(texts)
    assert words.offsets.tolist() == np.cumsum([0, *(len(plain_words(text)) for text in texts)]).tolist()
    strings = [word for text in texts for word in plain_words(text)]
    named = dict(zip(strings, words.hashes.tolist(), strict=True))
    assert [named[word] for word in strings] == words.hashes.tolist()
    assert len(set(named.values())) == len(named)


def test_hashes_depend_on_neither_company_nor_blocks(block):
    texts = ["the quick brown fox", "", "字 the", "a" * 40, "quick\nthe"]
    words = hash_words(texts)
    for number, text in enumerate(texts):
        alone = words.hashes[words.offsets[number] : words.offsets[number + 1]]
        assert alone.tolist() == hashes_of(text)
    assert hashes_of("quick")[0] == hashes_of("the quick")[1] == words.hashes[1]
    assert hashes_of("maskwright") == [plain_hash("maskwright")]
    assert hashes_of("字") == [plain_hash([ord("字") | 1 << 31])]


def test_hashes_of_a_large_vocabulary_are_different():
    strings = [f"{a}{b}" for a in "abcdefghij字漢" for b in range(20_000)]
    words = hash_words([" ".join(strings)])
    expected = len({word for text in strings for word in plain_words(text)})
    assert len(np.unique(words.hashes)) == expected


def test_folding_twice_is_folding_once():
    table = module._word_table()
    letters = table[table != 0] & ~np.uint32(1 << 31)
    assert np.array_equal(table[letters] & ~np.uint32(1 << 31), letters)


def test_some_words_of_a_text(block):
    words = TextWords("one two  three 四五")
    assert words.strings(1, 3) == ["two", "three"]
    assert words.strings(3, 99) == ["四", "五"]
    assert words.strings(0, 5) == ["one", "two", "three", "四", "五"]
    assert words.strings(7, 9) == []


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 6))
def test_runs_have_the_hash_of_their_words(values, length):
    hashes = np.array(values, np.uint64)
    runs = [run for _, block in rolling_hashes(hashes, length) for run in block.tolist()]
    named = {}
    keys = [tuple(values[start : start + length]) for start in range(len(values) - length + 1)]
    assert [named.setdefault(key, run) for key, run in zip(keys, runs, strict=True)] == runs
    assert len(set(named.values())) == len(named)


def test_runs_over_blocks(monkeypatch):
    hashes = np.arange(100, dtype=np.uint64)
    whole = np.concatenate([block for _, block in rolling_hashes(hashes, 5)])
    monkeypatch.setattr(module, "_WORD_BLOCK", 7)
    pieces = list(rolling_hashes(hashes, 5))
    assert [start for start, _ in pieces] == list(range(0, 96, 7))
    assert np.array_equal(np.concatenate([block for _, block in pieces]), whole)


def test_lines_look_at_letters_and_digits_alone(block):
    lines = hash_lines(["Page 12 of 30.\npage 99, of 10!", "no\n\n--\nPAGE 00 of 00"], 3)
    assert lines.texts.tolist() == [0, 0, 1]
    assert lines.lines.tolist() == [0, 1, 3]
    assert len(set(lines.keys.tolist())) == 1


def test_different_lines_have_different_keys(block):
    lines = hash_lines(["ab\nba\na\nb\naa\nabc\n字\n漢\nab9\n9ab"], 1)
    assert len(set(lines.keys.tolist())) == len(lines.keys) == 10


def test_no_texts_and_empty_texts():
    assert len(hash_words([]).hashes) == len(hash_lines([], 0).keys) == 0
    assert hash_words([]).offsets.tolist() == [0]
    assert hash_words(["", ""]).offsets.tolist() == [0, 0, 0]
    assert len(hash_lines(["", "\n"], 0).keys) == 0
