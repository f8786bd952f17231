"""Guards of masks: right maskers pass, and each kind of broken one is named."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_doubles import EOS, MASK, make_masker, make_text
from scipy.stats import binom

from maskwright.objectives.masking import Expectation
from maskwright.objectives.masking.guards import (
    check_labels,
    check_mask_rate,
    check_masks,
    check_specials,
    check_words,
    rate_interval,
)

UNITS = ("token", "word", "span")
TEXT = make_text([700, 3, 0, 1, 250, 900, 40, 9, 9, 9] * 10)
BLAMED = "masks of this run cannot be trusted; stop it and report this"


def window(first, number, text=TEXT):
    """A sample: tokens of the text with specials around them that have no place in it."""
    ids = np.concatenate([[0], text.ids[first : first + number], [EOS]])
    positions = np.concatenate([[-1], text.positions[first : first + number], [-1]])
    return ids, positions


def checked(masker, ids, positions, selected, seen, labels=None):
    targets = np.flatnonzero(selected)
    return check_masks(masker, ids, positions, seen, targets, ids[targets] if labels is None else labels)


@pytest.mark.parametrize("unit", UNITS)
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99),
    epoch=st.integers(-1, 40),
    rate=st.floats(0.02, 0.9),
    first=st.integers(0, len(TEXT.ids)),
    number=st.integers(0, 2000),
)
def test_a_right_masker_passes(unit, seed, epoch, rate, first, number):
    masker = make_masker(TEXT, seed, unit=unit)
    ids, positions = window(first, number)
    found = masker.mask(ids, positions, epoch, rate)
    assert checked(masker, ids, positions, found.selected, found.seen) is None
    assert check_mask_rate(int(found.selected.sum()), found.expectation()) is None


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("asked", "drawn"), [(0.15, 0.10), (0.15, 0.20), (0.3, 0.15), (0.4, 0.5)])
def test_a_wrong_rate_is_named(unit, asked, drawn):
    text = make_text([4000] * 20)
    masker = make_masker(text, unit=unit)
    wrong = int(masker.select(text.ids, text.positions, 0, drawn).sum())
    expected = masker.mask(text.ids, text.positions, 0, asked).expectation()
    said = check_mask_rate(wrong, expected)
    lowest, highest = rate_interval(expected)
    assert lowest < asked < highest
    assert said == (
        f"{wrong / 80_000:.2%} of 80000 tokens are masked, expected {asked:.2%} and by chance "
        f"{lowest:.2%} to {highest:.2%}; {BLAMED}"
    )


def test_the_interval_knows_how_much_words_and_spans_vary():
    text = make_text([4000] * 20, begin_share=0.2)
    widths = {}
    for unit in UNITS:
        expected = make_masker(text, unit=unit).mask(text.ids, text.positions, 0).expectation()
        lowest, highest = rate_interval(expected)
        widths[unit] = highest - lowest
        # With many tokens Bernstein's interval is the normal one for the same chance.
        normal = 2 * math.sqrt(2 * math.log(2e9) * expected.variance) / expected.num_eligible
        assert normal < widths[unit] < 1.5 * normal
    assert widths["token"] * 2.5 < widths["word"]
    assert widths["word"] * 1.5 < widths["span"]
    assert widths["span"] < 0.15


@pytest.mark.parametrize("unit", UNITS)
def test_chance_stays_in_the_interval_as_often_as_promised(unit):
    text = make_text([600] * 4, begin_share=0.4)
    masker = make_masker(text, unit=unit)
    expected = masker.mask(text.ids, text.positions, 0).expectation()
    lowest, highest = rate_interval(expected, chance=0.05)
    rates = np.array(
        [masker.select(text.ids, text.positions, epoch).sum() / expected.num_eligible for epoch in range(400)]
    )
    outside = ((rates < lowest) | (rates > highest)).sum()
    # At most 20 of 400 on average; Bernstein's bound is wider than need be.
    assert outside <= 20 + 5 * math.sqrt(400 * 0.05 * 0.95)
    assert highest - lowest < 12 * rates.std()


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.6])
@pytest.mark.parametrize("number", [3, 30, 300, 30_000])
@pytest.mark.parametrize("chance", [1e-9, 1e-4, 0.1])
def test_the_interval_keeps_its_promise_for_any_number_of_tokens(rate, number, chance):
    lowest, highest = rate_interval(Expectation(number, number * rate, number * rate * (1 - rate)), chance)
    law = binom(number, rate)
    below, above = math.ceil(lowest * number) - 1, math.floor(highest * number)
    assert law.cdf(below) + law.sf(above) <= chance
    assert number < 10_000 or law.cdf(below) + law.sf(above) > chance**2


def test_nothing_to_mask():
    nothing = Expectation(0, 0.0, 0.0)
    assert check_mask_rate(0, nothing) is None
    assert check_mask_rate(3, nothing) == f"3 tokens are masked and none may be; {BLAMED}"
    assert rate_interval(nothing) == (0.0, 1.0)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), first=st.integers(0, 3000), place=st.integers(0, 10**6))
def test_a_special_that_is_masked_is_named(seed, first, place):
    masker = make_masker(TEXT, seed)
    ids, positions = window(first, 1500)
    found = masker.mask(ids, positions, 0)
    specials = np.flatnonzero(~found.eligible)
    broken = specials[place % len(specials)]
    selected, seen = found.selected.copy(), found.seen.copy()
    selected[broken], seen[broken] = True, MASK
    where = f"position {positions[broken]} of the data" if positions[broken] >= 0 else f"place {broken} of"
    said = checked(masker, ids, positions, selected, seen)
    assert said is not None
    assert said.startswith(f"special token {ids[broken]} at {where}")
    assert said.endswith(f"is masked; {BLAMED}")


def test_a_token_that_a_window_added_is_never_to_be_masked():
    masker = make_masker()
    ids, positions = np.array([7, 8]), np.array([-1, 5])
    said = check_specials(masker, ids, positions, np.array([True, False]), np.array([MASK, 8]))
    assert said == f"special token 7 at place 0 of the batch is masked; {BLAMED}"


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), special=st.sampled_from([0, 1, EOS, 3]), place=st.integers(0, 10**6))
def test_a_special_that_is_drawn_is_named(seed, special, place):
    masker = make_masker(TEXT, seed)
    ids, positions = window(5, 1500)
    found = masker.mask(ids, positions, 0)
    targets = np.flatnonzero(found.selected)
    broken = targets[place % len(targets)]
    seen = found.seen.copy()
    seen[broken] = special
    said = checked(masker, ids, positions, found.selected, seen)
    assert said == (
        f"special token {special} stands for token {ids[broken]} at position {positions[broken]} "
        f"of the data; {BLAMED}"
    )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), place=st.integers(0, 10**6))
def test_wrong_labels_are_named(seed, place):
    masker = make_masker(TEXT, seed)
    ids, positions = window(5, 1500)
    found = masker.mask(ids, positions, 0)
    targets = np.flatnonzero(found.selected)
    labels = ids[targets]
    broken = place % len(targets)
    labels[broken] += 1
    said = checked(masker, ids, positions, found.selected, found.seen, labels)
    assert said == (
        f"the label of token {ids[targets[broken]]} at position {positions[targets[broken]]} of the data "
        f"is {labels[broken]}; {BLAMED}"
    )


def test_labels_in_another_order_or_number_are_named():
    masker = make_masker()
    ids, positions = window(5, 1500)
    found = masker.mask(ids, positions, 0)
    targets = np.flatnonzero(found.selected)
    shifted = checked(masker, ids, positions, found.selected, found.seen, np.roll(ids[targets], 1))
    assert shifted is not None
    assert "the label of token" in shifted
    seen_for_labels = checked(masker, ids, positions, found.selected, found.seen, found.seen[targets])
    assert f"of the data is {MASK}; {BLAMED}" in str(seen_for_labels)
    said = check_labels(ids, positions, found.seen, targets, ids[targets][1:])
    assert said == f"{len(targets)} tokens are masked and {len(targets) - 1} have labels; {BLAMED}"


def test_a_change_without_a_label_is_named():
    masker = make_masker()
    ids, positions = window(5, 1500)
    found = masker.mask(ids, positions, 0)
    broken = int(np.flatnonzero(found.selected & (found.seen == MASK))[3])
    selected = found.selected.copy()
    selected[broken] = False
    said = checked(masker, ids, positions, selected, found.seen)
    assert said == (
        f"token {ids[broken]} at position {positions[broken]} of the data is not predicted, "
        f"but the model sees {MASK}; {BLAMED}"
    )


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_in_parts_are_named(unit):
    text = make_text([4000], begin_share=0.3)
    ids, positions = window(0, 3000, text)
    torn = make_masker(unit="token").mask(ids, positions, 0)
    masker = make_masker(text, unit=unit)
    said = checked(masker, ids, positions, torn.selected, torn.seen)
    words = text.starts(positions)
    pairs = torn.selected[1:] != torn.selected[:-1]
    first = int(np.flatnonzero(pairs & (words[1:] == words[:-1]) & (positions[:-1] >= 0))[0])
    assert said == (
        f"the word of token {ids[first]} at position {positions[first]} of the data is masked in part; "
        f"{BLAMED}"
    )
    assert check_words(make_masker(unit="token"), ids, positions, torn.selected) is None


def test_the_same_word_in_two_epochs_is_no_torn_word():
    text = make_text([40], begin_share=0.1)
    masker = make_masker(text, unit="word")
    first, end = max(text.words()[0], key=lambda word: word[1] - word[0])
    # Rows without specials around them: one ends inside the word, the next begins with it.
    parts = [slice(0, end - 1), slice(first, 41)]
    rows = [(text.ids[part], text.positions[part]) for part in parts]
    for epochs in [(0, number) for number in range(1, 30)]:
        masks = [masker.mask(*row, epoch, 0.5) for row, epoch in zip(rows, epochs, strict=True)]
        if masks[0].selected[first] != masks[1].selected[0]:
            break
    assert masks[0].selected[-1] != masks[1].selected[0]
    selected, seen = (
        np.concatenate([getattr(mask, name) for mask in masks]) for name in ("selected", "seen")
    )
    ids, positions = (np.concatenate(pieces) for pieces in zip(*rows, strict=True))
    assert checked(masker, ids, positions, selected, seen) is None
