"""How steps are cut: each sample once, whatever the ranks and micro-batches, and budgets kept."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright.objectives.step_sizes import StepSizes
from maskwright.training.schedules import BatchWarmup

LENGTH = 16


class Lengths:
    """Samples of known lengths that come round again; counts what fits one by one."""

    sequence_length = LENGTH

    def __init__(self, lengths):
        self.lengths = lengths

    def tokens(self, first, count):
        return sum(self.lengths[place % len(self.lengths)] for place in range(first, first + count))

    def count_for_budget(self, first, max_tokens):
        count = 1
        while self.tokens(first, count + 1) <= max_tokens:
            count += 1
        return count


lengths = st.lists(st.integers(1, LENGTH), min_size=1, max_size=30).map(Lengths)
by_tokens = st.booleans()
few = st.integers(1, 7)


def covered(pieces, first, count):
    """Whether pieces lie end to end and cover a run of samples."""
    edges = [first, *(start + size for start, size in pieces)]
    return [start for start, _ in pieces] == edges[:-1] and edges[-1] == first + count


@given(lengths, by_tokens, st.integers(1, 20), few, few, st.integers(0, 10_000))
def test_ranks_and_micro_batches_partition_a_step(samples, tokens, sequences, micro, world, consumed):
    sizes = StepSizes(samples, lambda _: sequences, micro, tokens)
    count = sizes.samples_at(consumed)
    shares = [list(sizes.micro_batches(consumed, count, rank, world)) for rank in range(world)]
    pieces = [piece for share in shares for piece in share]
    assert covered(pieces, consumed, count)
    assert all(size >= 1 for _, size in pieces)
    totals = [sum(size for _, size in share) for share in shares]
    assert max(totals) - min(totals) <= 1


@given(lengths, st.integers(1, 20), few, few, st.integers(0, 10_000))
def test_token_budgets_are_kept_and_filled(samples, sequences, micro, world, consumed):
    sizes = StepSizes(samples, lambda _: sequences, micro, by_tokens=True)
    count, budget = sizes.samples_at(consumed), sequences * LENGTH
    assert samples.tokens(consumed, count) <= budget < samples.tokens(consumed, count + 1)
    for rank in range(world):
        pieces = list(sizes.micro_batches(consumed, count, rank, world))
        assert all(samples.tokens(*piece) <= micro * LENGTH for piece in pieces)
        # Only the last of a rank's micro-batches has room for a further sample.
        assert all(samples.tokens(start, size + 1) > micro * LENGTH for start, size in pieces[:-1])


def test_a_sample_longer_than_the_budget_comes_alone():
    samples = Lengths([3, 40, 5])
    sizes = StepSizes(samples, lambda _: 1, 1, by_tokens=True)
    consumed, found = 0, []
    for _ in range(4):
        found.append(list(sizes.micro_batches(consumed, sizes.samples_at(consumed))))
        consumed += sizes.samples_at(consumed)
    assert found == [[(0, 1)], [(1, 1)], [(2, 2)], [(4, 1)]]


@given(lengths, by_tokens, few, st.integers(1, 12), st.integers(0, 200), st.integers(0, 12))
def test_steps_depend_on_the_samples_consumed_alone(samples, tokens, micro, sequences, growth, resumed):
    warmup = BatchWarmup(sequences, micro, 1 if growth else None, growth)

    def steps(consumed, number):
        sizes = StepSizes(samples, warmup.sequences_at, micro, tokens)
        found = [consumed]
        for _ in range(number):
            found.append(found[-1] + sizes.samples_at(found[-1]))
        return found

    whole = steps(0, 15)
    assert steps(whole[resumed], 15 - resumed) == whole[resumed:]
    assert all(one < other for one, other in pairwise(whole))


@pytest.mark.parametrize("tokens", [False, True])
def test_the_batch_grows_with_its_warm_up(tokens):
    warmup = BatchWarmup(8, 2, warmup_from=2, warmup_samples=24)
    sizes = StepSizes(Lengths([LENGTH]), warmup.sequences_at, 2, tokens)
    consumed, found = 0, []
    while consumed < 40:
        found.append(sizes.samples_at(consumed))
        consumed += found[-1]
    assert found == [2, 2, 2, 2, 4, 4, 6, 6, 8, 8]
    assert np.sum(found) == consumed
