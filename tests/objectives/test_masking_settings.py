"""Rates that change, masks that do not, and settings that do not fit together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_doubles import EOS, MASK, SPECIAL, as_torch, make_masker, make_text

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError
from maskwright.objectives.masking import FIXED_EPOCH, MaskingConfig

UNITS = ("token", "word", "span")
TEXT = make_text([300, 1, 40, 0, 700, 5, 5, 2000])


def equal(first, second):
    return np.array_equal(first.selected, second.selected) and np.array_equal(first.seen, second.seen)


@pytest.mark.parametrize("unit", UNITS)
def test_static_masks_come_in_turn_and_new_ones_never_do(unit):
    fixed = make_masker(TEXT, unit=unit, static_copies=10)
    moving = make_masker(TEXT, unit=unit)
    masks = [fixed.mask(TEXT.ids, TEXT.positions, epoch) for epoch in range(40)]
    for epoch, mask in enumerate(masks):
        assert equal(mask, masks[epoch % 10])
        # The copies are the masks that the first epochs would have anyway.
        assert equal(mask, moving.mask(TEXT.ids, TEXT.positions, epoch)) == (epoch < 10)
    for first in range(10):
        assert not any(equal(masks[first], masks[other]) for other in range(first))
    validation = fixed.mask(TEXT.ids, TEXT.positions, FIXED_EPOCH)
    assert equal(validation, moving.mask(TEXT.ids, TEXT.positions, FIXED_EPOCH))
    assert not any(equal(validation, mask) for mask in masks)


def test_one_static_copy_never_changes():
    masker = make_masker(static_copies=1)
    first = masker.mask(TEXT.ids, TEXT.positions, 0)
    assert all(equal(first, masker.mask(TEXT.ids, TEXT.positions, epoch)) for epoch in (1, 2, 977))


def test_the_rate_goes_in_a_straight_line():
    config = MaskingConfig(mlm_probability=0.3, final_probability=0.15)
    assert [config.rate_at(share) for share in (0.0, 1.0)] == [0.3, 0.15]
    assert config.rate_at(0.5) == pytest.approx(0.225, rel=1e-12)
    assert config.rate_at(0.2) == pytest.approx(0.27, rel=1e-12)
    assert [config.rate_at(share) for share in (-0.5, 1.5)] == [0.3, 0.15]
    assert [MaskingConfig(mlm_probability=0.2).rate_at(share) for share in (0.0, 0.7, 1.0)] == [0.2] * 3


@pytest.mark.parametrize("unit", UNITS)
@settings(deadline=None, max_examples=25)
@given(rates=st.tuples(st.floats(0.01, 0.95), st.floats(0.01, 0.95)), epoch=st.integers(0, 50))
def test_masks_of_a_lower_rate_lie_inside_those_of_a_higher_one(unit, rates, epoch):
    masker = make_masker(TEXT, unit=unit)
    low, high = (masker.select(TEXT.ids, TEXT.positions, epoch, rate) for rate in sorted(rates))
    assert not (low & ~high).any()


@pytest.mark.parametrize("unit", UNITS)
def test_without_a_rate_it_is_the_first_one(unit):
    masker = make_masker(TEXT, unit=unit, mlm_probability=0.3, final_probability=0.1)
    expected = masker.mask(TEXT.ids, TEXT.positions, 3, 0.3)
    assert equal(masker.mask(TEXT.ids, TEXT.positions, 3), expected)
    assert np.array_equal(masker.select(TEXT.ids, TEXT.positions, 3), expected.selected)
    assert not equal(masker.mask(TEXT.ids, TEXT.positions, 3, 0.1), expected)


@pytest.mark.parametrize("unit", UNITS)
def test_mask_is_select_and_replace(unit):
    masker = make_masker(TEXT, unit=unit)
    found = masker.mask(TEXT.ids, TEXT.positions, 4, 0.4)
    selected = masker.select(TEXT.ids, TEXT.positions, 4, 0.4)
    assert np.array_equal(found.selected, selected)
    replaced = masker.replace(TEXT.ids, TEXT.positions, 4, 0.4)
    assert np.array_equal(found.seen, np.where(selected, replaced, TEXT.ids))
    assert np.array_equal(found.eligible, TEXT.ids != EOS)
    assert selected.any()


@pytest.mark.parametrize("unit", UNITS)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 9),
    epoch=st.integers(-1, 99),
    rate=st.floats(0.01, 0.95),
    first=st.integers(0, 2000),
    data=st.data(),
)
def test_torch_and_numpy_draw_the_same(unit, seed, epoch, rate, first, data):
    masker = make_masker(TEXT, seed, unit=unit)
    number = data.draw(st.integers(0, 900))
    part = slice(first, first + number // 2 * 2)
    ids, positions = TEXT.ids[part].reshape(2, -1), TEXT.positions[part].reshape(2, -1).copy()
    positions[:, :1] = -1
    expected = masker.mask(ids, positions, epoch, rate)
    tensors = torch.from_numpy(ids), torch.from_numpy(positions)
    found = masker.mask(*tensors, epoch, rate)
    for ours, theirs in zip(
        (expected.selected, expected.seen, expected.eligible), as_torch(found), strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    assert np.array_equal(expected.selected, masker.select(*tensors, epoch, rate).numpy())
    replaced = masker.replace(ids, positions, epoch, rate)
    assert np.array_equal(replaced, masker.replace(*tensors, epoch, rate).numpy())
    assert found.expectation() == expected.expectation()


@pytest.mark.gpu
@pytest.mark.parametrize("unit", UNITS)
def test_the_accelerator_draws_the_same(unit):
    masker = make_masker(TEXT, unit=unit)
    expected = masker.mask(TEXT.ids, TEXT.positions, 3, 0.3)
    tensors = torch.from_numpy(TEXT.ids).cuda(), torch.from_numpy(TEXT.positions).cuda()
    found = masker.mask(*tensors, 3, 0.3)
    assert found.seen.is_cuda
    assert np.array_equal(expected.selected, found.selected.cpu().numpy())
    assert np.array_equal(expected.seen, found.seen.cpu().numpy())
    assert found.expectation() == expected.expectation()


@pytest.mark.parametrize("unit", UNITS)
def test_tokens_of_no_document_are_left_alone(unit):
    masker = make_masker(TEXT, unit=unit)
    nowhere = np.full(50, -1, np.int64)
    found = masker.mask(np.full(50, 7), nowhere, 0, 0.9)
    assert not found.selected.any()
    assert (found.seen == 7).all()
    empty = masker.mask(nowhere[:0], nowhere[:0], 0)
    assert empty.selected.shape == empty.seen.shape == (0,)
    assert empty.expectation().num_eligible == 0


def test_special_tokens_are_neither_masked_nor_drawn():
    for unit in UNITS:
        found = make_masker(TEXT, unit=unit, mask_share=0.1, random_share=0.9).mask(
            TEXT.ids, TEXT.positions, 1, 0.9
        )
        assert not found.selected[TEXT.ids == EOS].any()
        assert not np.isin(found.seen[found.selected], [number for number in SPECIAL if number != MASK]).any()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"random_share": 0.3}, r"mask_share 0\.8 and random_share 0\.3 add up to more than 1"),
        (
            {"final_probability": 0.3, "static_copies": 10},
            r"final_probability 0\.3 changes the masks that static_copies 10 keeps fixed; leave one of",
        ),
        ({"unit": "phrase"}, "\"unit\" is 'phrase', expected 'token', 'word' or 'span'"),
        ({"mlm_probability": 0}, '"mlm_probability" is 0, expected greater than 0'),
        ({"span_max": 0}, '"span_max" is 0, expected greater than or equal to 1'),
    ],
)
def test_settings_that_cannot_be(values, said):
    with pytest.raises(ConfigError, match=said):
        parse_config(MaskingConfig, values, "here")


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_must_be_known(unit):
    with pytest.raises(ConfigError, match=f"\"masking.unit\" is '{unit}', but the masker was not told where"):
        make_masker(unit=unit)
    with pytest.raises(ConfigError, match=r"give it the words of the data, or set masking\.unit=token"):
        make_masker(TEXT, unit=unit).over(None)


@pytest.mark.parametrize("unit", ["word", "span"])
def test_another_split_has_its_own_words(unit):
    other = make_text([400, 30], seed=5)
    masker = make_masker(TEXT, unit=unit)
    expected = make_masker(other, unit=unit).mask(other.ids, other.positions, 2)
    assert equal(masker.over(other).mask(other.ids, other.positions, 2), expected)
    assert not equal(masker.mask(other.ids, other.positions, 2), expected)


def test_settings_without_effect_are_told(caplog):
    make_masker(span_p=0.5, span_max=4)
    (record,) = caplog.records
    assert record.getMessage() == (
        "masking.span_p and masking.span_max are ignored with masking.unit=token; "
        "set masking.unit=span to mask spans"
    )
    caplog.clear()
    make_masker(TEXT, unit="span", span_p=0.5, span_max=4)
    make_masker(span_p=0.2)
    assert not caplog.records
