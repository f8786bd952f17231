"""Whole words: all tokens of a word or none, at the rate that was asked for."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_doubles import EOS, MASK, Text, make_masker, make_text

from maskwright.core.keyed import derive_key, hash64, to_unit

TEXT = make_text([700, 3, 0, 1, 250, 900, 40] * 3)


def slow_words(text, seed, epoch, rate):
    """Go through the words one after the other and draw for each."""
    key, selected = derive_key(seed, "mask", epoch), set()
    for document in text.words():
        for first, end in document:
            if to_unit(hash64(key, np.array([first], np.int64)))[0] < rate:
                selected |= {place for place in range(first, end) if text.ids[place] != EOS}
    return sorted(selected)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.15), (7, 0.4), (-1, 0.02), (3, 0.95)])
def test_the_same_words_as_one_after_the_other(epoch, rate):
    found = make_masker(TEXT, 5, unit="word").select(TEXT.ids, TEXT.positions, epoch, rate)
    assert np.flatnonzero(found).tolist() == slow_words(TEXT, 5, epoch, rate)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 99),
    rate=st.floats(0.01, 0.95),
    ends=st.tuples(st.integers(0, 400), st.integers(0, 400)),
)
def test_words_are_whole_in_any_window(lengths, share, seed, rate, ends):
    text = make_text(lengths, seed, share)
    masker = make_masker(text, seed, unit="word")
    whole = masker.select(text.ids, text.positions, 1, rate)
    for document in text.words():
        for first, end in document:
            assert len(set(whole[first:end])) == 1
    window = slice(*sorted(ends))
    assert np.array_equal(masker.select(text.ids[window], text.positions[window], 1, rate), whole[window])


@pytest.mark.parametrize(("rate", "share"), [(0.15, 0.6), (0.15, 0.1), (0.4, 0.3), (0.02, 1.0)])
def test_the_asked_share_of_tokens_is_selected(rate, share):
    text = make_text([5000] * 40, 1, share)
    found = make_masker(text, unit="word").mask(text.ids, text.positions, 2, rate)
    expected = found.expectation()
    assert expected.num_eligible == 200_000
    assert expected.targets == pytest.approx(200_000 * rate, rel=1e-12)
    assert abs(found.selected.sum() - expected.targets) <= 5 * math.sqrt(expected.variance)


def test_the_variance_is_that_of_the_number_of_tokens():
    text = make_text([3000] * 2, 3, 0.3)
    masker = make_masker(text, unit="word")
    counts = [masker.select(text.ids, text.positions, epoch).sum() for epoch in range(1200)]
    expected = masker.mask(text.ids, text.positions, 0).expectation()
    # A variance of 1200 draws has a relative standard deviation of 4 %.
    assert np.var(counts) == pytest.approx(expected.variance, rel=0.2)
    assert abs(np.mean(counts) - expected.targets) < 5 * math.sqrt(expected.variance / len(counts))
    words = np.add.reduceat((text.ids != EOS).astype(int), np.flatnonzero(text.begins))
    assert expected.variance == pytest.approx((words**2).sum() * 0.15 * 0.85, rel=1e-12)
    assert expected.variance > 4 * expected.num_eligible * 0.15 * 0.85


def test_words_of_one_token_are_tokens():
    text = make_text([4000], 2, 1.0)
    whole = make_masker(text, unit="word").mask(text.ids, text.positions, 3)
    single = make_masker(unit="token").mask(text.ids, text.positions, 3)
    assert np.array_equal(whole.selected, single.selected)
    assert np.array_equal(whole.seen, single.seen)
    assert whole.expectation() == single.expectation()


def test_tokens_of_a_word_are_replaced_by_themselves():
    text = make_text([40_000], 2, 0.25)
    found = make_masker(text, unit="word").mask(text.ids, text.positions, 0, 0.5)
    inside = np.flatnonzero(found.selected[1:] & found.selected[:-1] & ~text.begins[1:])
    both = (found.seen[inside] == MASK) & (found.seen[inside + 1] == MASK)
    share = 0.8 * 0.8
    assert abs(both.sum() - len(inside) * share) < 8 * math.sqrt(len(inside) * share * (1 - share))


def test_a_word_of_specials_alone_is_never_selected():
    text = make_text([2, 0, 0, 1] * 200, 0, 1.0)
    ids = np.where(text.begins & (text.positions % 3 == 0), 3, text.ids)
    selected = make_masker(text, unit="word").select(ids, text.positions, 0, 0.99)
    assert not selected[np.isin(ids, (3, EOS))].any()
    assert selected[~np.isin(ids, (3, EOS))].mean() > 0.9


def test_a_long_word_in_many_pieces_is_never_masked_in_part():
    # "The electroencephalography shows it" as byte-level BPE cuts it: a new word begins with a space.
    pieces = ["The", " elect", "ro", "ence", "phal", "ography", " shows", " it", "</s>"]
    begins = np.array([index == 0 or piece[0] in " <" for index, piece in enumerate(pieces)])
    opens = np.arange(len(pieces)) == 0
    text = Text(np.array([4, 5, 6, 7, 8, 9, 10, 11, EOS]), begins, opens)
    masker = make_masker(text, unit="word")
    word = slice(1, 6)
    outcomes = set()
    for epoch in range(200):
        selected = masker.select(text.ids, text.positions, epoch, 0.3)
        outcomes.add(tuple(selected[word].tolist()))
        # The same word where a window begins in the middle of it.
        cut = masker.select(text.ids[3:], text.positions[3:], epoch, 0.3)
        assert np.array_equal(cut, selected[3:])
    assert outcomes == {(True,) * 5, (False,) * 5}
