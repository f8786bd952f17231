"""Growing batches: the sizes, and that they are a function of the samples seen."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.core.errors import ConfigError
from maskwright.training.schedules import BatchWarmup


def sizes(warmup, until):
    """Sizes of the steps of a run until so many samples are consumed."""
    found, consumed = [], 0
    while consumed < until:
        found.append(warmup.sequences_at(consumed))
        consumed += found[-1]
    return found


def test_without_a_warm_up_all_steps_are_alike():
    assert sizes(BatchWarmup(12, 5), 40) == [12, 12, 12, 12]


def test_it_grows_linearly_in_samples():
    warmup = BatchWarmup(32, 4, warmup_from=8, warmup_samples=96)
    # 8 + 24 × consumed / 96, rounded down to fours.
    found = [warmup.sequences_at(consumed) for consumed in (0, 15, 16, 48, 64, 95, 96, 1000)]
    assert found == [8, 8, 12, 20, 24, 28, 32, 32]
    assert sizes(warmup, 200) == [8, 8, 12, 12, 16, 20, 24, 32, 32, 32, 32]


@given(st.integers(1, 500), st.integers(1, 64), st.data())
def test_sizes_never_fall_and_fit_the_micro_batch(sequences, multiple, data):
    first = data.draw(st.integers(1, sequences))
    warmup = BatchWarmup(sequences, multiple, first, data.draw(st.integers(1, 5000)))
    found = [warmup.sequences_at(consumed) for consumed in range(0, warmup.warmup_samples + 50, 7)]
    assert all(1 <= a <= b <= sequences for a, b in pairwise(found))
    assert all(size % multiple == 0 or size == sequences for size in found)
    assert found[0] <= max(first, multiple)
    assert warmup.sequences_at(warmup.warmup_samples) == sequences


def test_a_larger_beginning_than_end_is_refused():
    said = r'"batch.warmup_from" is 64, more than batch.sequences \(32\); lower it'
    with pytest.raises(ConfigError, match=said):
        BatchWarmup(32, 4, warmup_from=64, warmup_samples=100)


@pytest.mark.parametrize(("first", "samples"), [(8, 0), (None, 100)])
def test_half_a_warm_up_is_refused(first, samples):
    said = f'"batch.warmup_from" is {first} and batch.warmup_samples {samples}; set both or none'
    with pytest.raises(ConfigError, match=said):
        BatchWarmup(32, 4, first, samples)
