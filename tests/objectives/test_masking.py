"""Dynamic masking: the shares are right, and a mask depends on seed, epoch and position alone."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError
from maskwright.core.keyed import derive_key, hash64, to_unit
from maskwright.objectives.masking import FIXED_EPOCH, Masker, MaskingConfig

VOCABULARY, MASK = 500, 499
SPECIAL = (0, 1, 2, 3, MASK)


def masker(seed=0, **shares):
    return Masker(MaskingConfig(**shares), seed, VOCABULARY, MASK, SPECIAL)


def corpus(number, seed=0):
    positions = np.arange(number, dtype=np.int64)
    return np.random.default_rng(seed).integers(4, MASK, number), positions


def in_binomial_interval(successes, number, share):
    """Within five standard deviations: by chance once in two million."""
    return abs(successes - number * share) <= 5 * math.sqrt(number * share * (1 - share))


@pytest.mark.parametrize("probability", [0.15, 0.4, 0.01])
def test_the_asked_share_is_selected(probability):
    ids, positions = corpus(400_000)
    selected = masker(mlm_probability=probability).select(ids, positions, 3)
    assert in_binomial_interval(selected.sum(), len(ids), probability)


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.5, 0.5), (1.0, 0.0), (0.0, 0.0), (0.0, 1.0)])
def test_shares_of_mask_random_and_kept(shares):
    ids, positions = corpus(400_000)
    mask, chance = shares
    found = masker(mask_share=mask, random_share=chance)
    selected = found.select(ids, positions, 0)
    seen, truth = found.replace(ids, positions, 0)[selected], ids[selected]
    number = len(truth)
    assert in_binomial_interval((seen == MASK).sum(), number, mask)
    # One random token in 495 is the right one by chance.
    assert in_binomial_interval((seen == truth).sum(), number, 1 - mask - chance + chance / 495)


def test_random_tokens_are_uniform_and_never_special():
    ids, positions = corpus(600_000)
    seen = masker(mask_share=0, random_share=1).replace(ids, positions, 0)
    counts = np.bincount(seen, minlength=VOCABULARY)
    assert counts[list(SPECIAL)].tolist() == [0] * 5
    ordinary = counts[4:MASK]
    expected = len(ids) / len(ordinary)
    chi_square = ((ordinary - expected) ** 2 / expected).sum()
    assert abs(chi_square - 494) < 5 * math.sqrt(2 * 494)


def test_specials_are_never_selected():
    positions = np.arange(5000, dtype=np.int64)
    for special in SPECIAL:
        assert not masker(mlm_probability=0.99).select(np.full(5000, special), positions, 0).any()
    added = np.full(5000, -1, np.int64)
    assert not masker(mlm_probability=0.99).select(np.full(5000, 7), added, 0).any()


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 1000), max_size=5), epoch=st.integers(-1, 50), seed=st.integers(0, 9))
def test_a_mask_does_not_depend_on_what_is_beside_it(cuts, epoch, seed):
    ids, positions = corpus(1000)
    found = masker(seed)
    edges = [0, *sorted(cuts), 1000]
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    for function in (found.select, found.replace):
        whole = function(ids, positions, epoch)
        assert np.array_equal(whole, np.concatenate([function(ids[p], positions[p], epoch) for p in parts]))
        assert np.array_equal(
            whole, function(ids.reshape(10, 100), positions.reshape(10, 100), epoch).ravel()
        )


def test_masks_change_with_epoch_and_seed():
    ids, positions = corpus(20_000)
    first = masker(0).select(ids, positions, 0)
    for other in (masker(0).select(ids, positions, 1), masker(1).select(ids, positions, 0)):
        both = (first & other).sum()
        assert in_binomial_interval(both, len(ids), 0.15**2)
    assert np.array_equal(first, masker(0).select(ids, positions, 0))
    assert not np.array_equal(masker(0).select(ids, positions, FIXED_EPOCH), first)


def test_selection_and_replacement_are_independent():
    ids, positions = corpus(400_000)
    found = masker()
    selected, seen = found.select(ids, positions, 0), found.replace(ids, positions, 0)
    share = (seen == MASK).mean()
    assert in_binomial_interval((seen[selected] == MASK).sum(), selected.sum(), share)


def test_numpy_and_torch_draw_the_same_masks():
    positions = np.arange(100_000, dtype=np.int64) * 977
    key = derive_key(5, "mask", 2)
    ours = to_unit(hash64(key, positions)) < 0.15
    theirs = to_unit(hash64(key, torch.from_numpy(positions))) < 0.15
    assert np.array_equal(ours, theirs.numpy())


def test_shares_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"mask_share 0\.8 and random_share 0\.3 add up to more than 1"):
        parse_config(MaskingConfig, {"random_share": 0.3}, "here")
