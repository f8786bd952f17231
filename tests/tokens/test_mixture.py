"""Mixtures: what is asked resolves to repeats, and every prefix of the order has it."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.errors import ConfigError
from maskwright.tokens.mixture import MAX_SAMPLES, SourceOrder, _share, resolve_mixture

TOKENS = {"web": 900, "books": 90, "wiki": 10}


def shares(repeats, tokens=TOKENS):
    epoch = sum(repeats[name] * tokens[name] for name in tokens)
    return {name: repeats[name] * tokens[name] / epoch for name in tokens}, epoch


def test_nothing_asked_means_every_token_once():
    assert resolve_mixture(TOKENS) == {"web": 1.0, "books": 1.0, "wiki": 1.0}


def test_weights_are_shares_of_an_epoch_as_long_as_the_sources():
    repeats = resolve_mixture(TOKENS, weights={"web": 5, "books": 3, "wiki": 2})
    found, epoch = shares(repeats)
    assert found == pytest.approx({"web": 0.5, "books": 0.3, "wiki": 0.2})
    assert epoch == pytest.approx(1000)
    assert repeats["wiki"] == pytest.approx(20)


def test_a_weight_of_nothing_leaves_a_source_out_of_shares_and_length():
    repeats = resolve_mixture(TOKENS, weights={"web": 0, "books": 1, "wiki": 1})
    assert repeats == pytest.approx({"web": 0, "books": 50 / 90, "wiki": 5})
    assert shares(repeats)[1] == pytest.approx(100)


@pytest.mark.parametrize("temperature", [0.5, 1, 2, 5, 1e9])
def test_a_temperature_flattens_the_shares(temperature):
    found, epoch = shares(resolve_mixture(TOKENS, temperature=temperature))
    powers = {name: count ** (1 / temperature) for name, count in TOKENS.items()}
    assert found == pytest.approx({name: power / sum(powers.values()) for name, power in powers.items()})
    assert epoch == pytest.approx(1000)


def test_a_temperature_of_one_changes_nothing():
    assert resolve_mixture(TOKENS, temperature=1) == pytest.approx(resolve_mixture(TOKENS))


def test_a_temperature_leaves_out_what_has_no_tokens():
    assert resolve_mixture({"a": 5, "b": 0}, temperature=3) == {"a": 1.0, "b": 0.0}


def test_epochs_are_repeats_and_one_where_not_named():
    assert resolve_mixture(TOKENS, epochs={"wiki": 2.5, "web": 0}) == {"web": 0.0, "books": 1.0, "wiki": 2.5}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"weights": {}, "epochs": {}}, "mixture: weights and epochs are both given; keep one of them"),
        ({"epochs": {"wik": 2}}, "mixture.epochs: there is no source 'wik'; did you mean \"wiki\"?"),
        (
            {"weights": {"web": 1}},
            "mixture.weights has no books, wiki; give every source one, 0 leaves it out",
        ),
        ({"weights": dict.fromkeys(TOKENS, 0)}, "mixture.weights are all 0; give a source more"),
        ({"epochs": {"wiki": -1}}, "mixture.epochs.wiki is -1, expected a number of 0 or more"),
        ({"weights": {"wiki": math.nan}}, "mixture.weights.wiki is nan, expected a number of 0 or more"),
        (
            {"epochs": dict.fromkeys(TOKENS, 0)},
            "mixture.epochs leaves no tokens; give a source with tokens more",
        ),
        ({"temperature": 0}, "mixture.temperature is 0, expected a number above 0"),
        ({"temperature": math.inf}, "mixture.temperature is inf, expected a number above 0"),
    ],
)
def test_a_mixture_that_cannot_be_made(asked, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        resolve_mixture(TOKENS, **asked)


def test_a_weight_on_a_source_without_tokens():
    said = (
        r"mixture\.weights\.b is 0\.5, but the source has no training tokens; "
        r"look at its drops in audit\.json, or set the weight to 0"
    )
    with pytest.raises(ConfigError, match=said):
        resolve_mixture({"a": 5, "b": 0}, weights={"a": 1, "b": 0.5})


COUNTS = st.lists(st.one_of(st.integers(1, 6), st.integers(1, 400)), min_size=1, max_size=9)


def prefix_counts(sources, number):
    """How many samples of each source the first i samples have; shape (i + 1, sources)."""
    ones = sources[:, None] == np.arange(number)
    return np.concatenate([np.zeros((1, number), np.int64), np.cumsum(ones, axis=0)])


@settings(deadline=None, max_examples=200)
@given(counts=COUNTS)
def test_every_prefix_has_the_asked_proportions(counts):
    order = SourceOrder(counts)
    sources, ranks = order.find(np.arange(2 * order.size))
    found = prefix_counts(sources, len(counts))
    ideal = np.arange(2 * order.size + 1)[:, None] * (np.array(counts) / order.size)
    assert np.abs(found - ideal).max() <= order.deviation + 1e-9
    assert order.deviation < (1 if len(counts) <= 4 else 1.25)
    assert np.array_equal(found[order.size], counts)
    for source in range(len(counts)):
        assert ranks[sources == source].tolist() == list(range(2 * counts[source]))


@settings(deadline=None, max_examples=300)
@given(weights=st.lists(st.floats(0, 11), min_size=1, max_size=12))
def test_the_bound_of_mixtures_over_eleven_orders_of_magnitude(weights):
    order = SourceOrder([int(10**weight) for weight in weights])
    assert order.deviation < (1 if len(weights) <= 4 else 1.25)


def test_many_small_sources_do_not_push_a_large_one_aside():
    # Taking turns by virtual time would put all the small ones next to each other in the middle.
    order = SourceOrder([*[1] * 20, 1000])
    sources, _ = order.find(np.arange(order.size))
    found = prefix_counts(sources, 21)[:, 20]
    assert np.abs(found - np.arange(order.size + 1) * 1000 / 1020).max() < 1
    assert np.diff(np.flatnonzero(sources < 20)).min() > 20


@settings(deadline=None)
@given(counts=COUNTS, first=st.integers(0, 10**15), count=st.integers(0, 50))
def test_the_order_of_a_part_is_part_of_the_order(counts, first, count):
    order = SourceOrder(counts)
    samples = np.arange(first, first + count)
    sources, ranks = order.find(samples)
    for row, sample in enumerate(samples):
        (source,), (rank,) = order.find(np.array([sample]))
        assert (sources[row], ranks[row]) == (source, rank)
        epoch, within = divmod(int(sample), order.size)
        assert epoch * counts[source] <= rank < (epoch + 1) * counts[source]
        assert order.find(np.array([within]))[1][0] == rank - epoch * counts[source]


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_shares_are_exact_up_to_the_largest_number_of_samples(data):
    whole = data.draw(st.one_of(st.integers(1, 50), st.integers(1, MAX_SAMPLES)))
    part = data.draw(st.integers(0, whole))
    numbers = data.draw(st.lists(st.integers(0, whole), min_size=1, max_size=20))
    found = _share(np.array(numbers, np.int64), part, whole).tolist()
    assert found == [(number * part + whole // 2) // whole for number in numbers]


def test_a_trillion_samples_do_not_drift():
    counts = [700_000_000_001, 299_999_999_998, 1]
    order = SourceOrder(counts)
    middle = order.size // 2
    sources, ranks = order.find(np.arange(middle - 500, middle + 500))
    for sample, source, rank in zip(range(middle - 500, middle + 500), sources, ranks, strict=True):
        ideal = Fraction(sample * counts[source], order.size)
        assert abs(int(rank) - ideal) <= order.deviation
    for source in range(2):
        mine = ranks[sources == source]
        assert np.array_equal(mine, np.arange(mine[0], mine[0] + len(mine)))


def test_one_source_is_the_plain_order():
    sources, ranks = SourceOrder([7]).find(np.arange(100))
    assert not sources.any()
    assert ranks.tolist() == list(range(100))
