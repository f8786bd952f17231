"""Holding out a part of the examples: complete, stratified, repeatable, without leaks."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.errors import ConfigError, DataError
from maskwright.tasks.classification.data import LabelledDataset, split_dataset


def make_dataset(counts: list[int], texts_b: bool = False) -> LabelledDataset:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    texts = [f"text {number}" for number in range(len(labels))]
    names = [f"class {label}" for label in range(len(counts))]
    return LabelledDataset(texts, labels, names, [f"b {text}" for text in texts] if texts_b else None)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.floats(0.02, 0.98),
    st.integers(0, 2**40),
)
def test_a_division_is_complete_stratified_and_leaves_no_class_out(counts, fraction, seed):
    dataset = make_dataset(counts)
    try:
        rest, held_out = split_dataset(dataset, fraction, seed)
    except DataError:
        assert round(sum(counts) * fraction) == 0 or max(counts) == 1
        return
    assert sorted(rest.texts + held_out.texts) == sorted(dataset.texts)
    assert rest.label_names == held_out.label_names == dataset.label_names
    assert set(rest.labels) == set(dataset.labels)
    for label, count in Counter(dataset.labels).items():
        assert abs(held_out.labels.count(label) - count * fraction) <= 1
    assert (rest, held_out) == split_dataset(dataset, fraction, seed)


def test_the_share_is_met_over_all_classes():
    _, held_out = split_dataset(make_dataset([3] * 100), 0.1, seed=0)
    assert len(held_out) == 30
    _, held_out = split_dataset(make_dataset([997, 3]), 0.1, seed=0)
    assert len(held_out) == 100


def test_another_seed_divides_otherwise_and_order_is_kept():
    dataset = make_dataset([50, 50], texts_b=True)
    (rest, one), (_, other) = split_dataset(dataset, 0.2, 0), split_dataset(dataset, 0.2, 1)
    assert one.texts != other.texts
    positions = [dataset.texts.index(text) for text in rest.texts]
    assert positions == sorted(positions)
    assert one.texts_b == [f"b {text}" for text in one.texts]


def test_copies_stay_on_one_side():
    texts = [f"text {number % 40}" for number in range(120)]
    dataset = LabelledDataset(texts, [number % 2 for number in range(120)], ["a", "b"])
    rest, held_out = split_dataset(dataset, 0.25, seed=3)
    assert not set(rest.texts) & set(held_out.texts)
    assert len(held_out) == 30


def test_the_division_is_fixed_for_all_time():
    _, held_out = split_dataset(make_dataset([6, 6]), 0.34, seed=1)
    assert held_out.texts == ["text 2", "text 4", "text 7", "text 11"]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_that_makes_no_sense(fraction):
    with pytest.raises(
        ConfigError, match=f"the fraction to hold out is {fraction}, expected a number between"
    ):
        split_dataset(make_dataset([5, 5]), fraction, 0)


def test_too_few_rows_to_divide():
    with pytest.raises(DataError, match="4 examples are too few to hold out 10% of them; give a file"):
        split_dataset(make_dataset([2, 2]), 0.1, 0)
    with pytest.raises(DataError, match="too few to hold out 50%"):
        split_dataset(make_dataset([1, 1]), 0.5, 0)
