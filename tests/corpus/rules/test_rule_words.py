from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_helpers import document

from maskwright.corpus.document import Drop
from maskwright.corpus.rules.alphabetic_words import AlphabeticWords, alphabetic_words_step
from maskwright.corpus.rules.digits import Digits, digits_step
from maskwright.corpus.rules.stop_words import StopWords, stop_words_step
from maskwright.corpus.rules.symbols import Symbols, count_ellipses, symbols_step
from maskwright.corpus.rules.word_count import WordCount, word_count_step
from maskwright.corpus.rules.word_length import WordLength, word_length_step


def words(count, word="word"):
    return document(" ".join([word] * count))


@pytest.mark.parametrize("count", [50, 51, 100_000])
def test_numbers_of_words_within_limits_are_kept(count):
    assert word_count_step(WordCount())(words(count)) == words(count)


def test_too_few_and_too_many_words_are_dropped():
    step = word_count_step(WordCount())
    assert step(words(49)) == Drop("too_few_words", "49 words, at least 50")
    assert step(words(100_001)) == Drop("too_many_words", "100001 words, at most 100000")


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_word_count_is_exact(count, low, extra):
    low, high = low, max(1, low + extra)
    kept = word_count_step(WordCount(min_words=low, max_words=high))(words(count)) == words(count)
    assert kept == (low <= count <= high)


@pytest.mark.parametrize(("length", "kept"), [(2, False), (3, True), (10, True), (11, False)])
def test_mean_word_length_is_exact(length, kept):
    text = words(60, "x" * length)
    assert (word_length_step(WordLength())(text) == text) is kept


def test_mean_word_length_is_said():
    step = word_length_step(WordLength())
    assert step(document("a bb")) == Drop("short_words", "mean of 1.50 characters, at least 3")
    assert step(document("x" * 21 + " yy")) == Drop("long_words", "mean of 11.50 characters, at most 10")
    assert step(document("")) == Drop("short_words", "mean of 0.00 characters, at least 3")


@pytest.mark.parametrize(("sign", "reason"), [("#", "hash_signs"), ("...", "ellipses"), ("…", "ellipses")])
def test_one_symbol_in_ten_words_is_the_limit(sign, reason):
    step = symbols_step(Symbols())
    kept = document(" ".join(["word"] * 19 + ["word" + sign + "x" + sign]))
    dropped = document(" ".join(["word"] * 19 + ["word" + (sign + "x") * 3]))
    assert step(kept) is kept
    assert step(dropped) == Drop(reason, "0.150 a word, at most 0.1")


def test_the_two_symbols_are_not_added_up():
    text = document("# one two three four five six seven eight... nine")
    assert symbols_step(Symbols())(text) is text


def test_ellipses_of_both_kinds_are_counted():
    assert count_ellipses("a... b… c.. d......") == 4


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_digits_are_exact(num_digits, num_letters, percent):
    text = document("7 " * num_digits + "x\n" * num_letters)
    kept = digits_step(Digits(max_share=percent / 100))(text) is text
    total = num_digits + num_letters
    assert kept == (num_digits / max(1, total) <= percent / 100)


def test_digits_are_said():
    assert digits_step(Digits())(document("call 12345 1")) == Drop(
        "digits", "0.600 of characters, at most 0.25"
    )


@given(st.integers(0, 30), st.integers(0, 30))
def test_four_words_in_five_need_a_letter(with_letter, without):
    text = document("a1 " * with_letter + "12 " * without)
    total = with_letter + without
    kept = alphabetic_words_step(AlphabeticWords())(text) is text
    assert kept == (total > 0 and with_letter / total >= 0.8)


def test_alphabetic_words_are_said_and_know_all_scripts():
    step = alphabetic_words_step(AlphabeticWords())
    assert step(document("one 2 3 four")) == Drop("few_alphabetic_words", "0.500 of words, at least 0.8")
    assert step(document("слово λέξη 字")) == document("слово λέξη 字")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nothing here", 0),
        ("the the the", 1),
        ("other bethink without", 0),
        ("xthe ofx the_ 1of", 0),
        ("", 0),
    ],
)
def test_too_few_stop_words(text, found):
    expected = Drop("few_stop_words", f"{found} different stop words, at least 2")
    assert stop_words_step(StopWords())(document(text)) == expected


@pytest.mark.parametrize("text", ["the end of it", "To be", "(of)and", "THE BEST WITH"])
def test_two_different_stop_words_are_enough(text):
    assert stop_words_step(StopWords())(document(text)) == document(text)


@given(
    st.lists(st.sampled_from(["the", "be", "to", "of", "and", "that", "have", "with", "cat", "dog"])),
    st.integers(0, 9),
)
def test_stop_words_are_counted_once_each(chosen, least):
    text = document(" ".join(chosen))
    kept = stop_words_step(StopWords(min_distinct=least))(text) is text
    assert kept == (len(set(chosen) - {"cat", "dog"}) >= least)


def test_other_stop_words_can_be_given_with_signs_in_them():
    step = stop_words_step(StopWords(words=("c++", "der", "DIE"), min_distinct=2))
    assert step(document("der Hund, die Katze")) == document("der Hund, die Katze")
    assert step(document("c")) == Drop("few_stop_words", "0 different stop words, at least 2")


@pytest.mark.parametrize(
    "step",
    [
        word_count_step(WordCount(min_words=5)),
        word_length_step(WordLength()),
        symbols_step(Symbols()),
        digits_step(Digits()),
        alphabetic_words_step(AlphabeticWords()),
        stop_words_step(StopWords()),
    ],
)
@given(text=st.text(st.sampled_from("ab1#.… \n"), max_size=80))
def test_more_good_prose_never_makes_it_worse(step, text):
    prose = "the people of this town have been here with us"
    once = document(text + "\n" + (prose + "\n") * 50)
    more = document(text + "\n" + (prose + "\n") * 100)
    if step(once) is once:
        assert step(more) is more
