"""Sample order as a pure function: every token once an epoch, any place reached at once."""

import hashlib
import itertools
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.tokens.shards import SourceTokens
from maskwright.tokens.stream import SampleStream


class Row:
    """A split whose token at position i has the id 10 + i, of sources given as (tokens, repeats)."""

    folder, split = "here", "train"

    def __init__(self, *sources):
        found, self.num_tokens = [], 0
        for number, (num_tokens, repeats) in enumerate(sources):
            found.append(SourceTokens(f"source-{number}", self.num_tokens, num_tokens, repeats))
            self.num_tokens += num_tokens
        self.sources = tuple(found)

    def expect(self, starts, lengths, *, keep=True):
        """All of it is here."""

    def tokens(self, start, count):
        assert 0 <= start <= start + count <= self.num_tokens
        return np.arange(10 + start, 10 + start + count)


def stream(num_tokens, length=10, seed=1, *, shuffle=True):
    return SampleStream(Row((num_tokens, 1.0)), length, 0, 2, seed, shuffle=shuffle)


def mixed(sources, length=10, seed=1, *, shuffle=True):
    return SampleStream(Row(*sources), length, 0, 2, seed, shuffle=shuffle)


PER_SAMPLE, PER_TOKEN = ("lengths", "samples", "epoch"), ("ids", "positions")


def rows(batch, name="ids"):
    """What a batch says of the tokens of each sample."""
    return [part.tolist() for part in np.split(getattr(batch, name), np.cumsum(batch.lengths)[:-1])]


SIZES = st.integers(8, 400)
LENGTHS = st.integers(3, 10)


@settings(deadline=None)
@given(
    num_tokens=SIZES, length=LENGTHS, seed=st.integers(0, 5), epoch=st.integers(0, 4), shuffle=st.booleans()
)
def test_an_epoch_has_every_token_of_its_windows_once(num_tokens, length, seed, epoch, shuffle):
    samples = stream(num_tokens, length, seed, shuffle=shuffle)
    number = samples.samples_per_epoch
    batch = samples.batch(epoch * number, number)
    assert set(batch.epoch.tolist()) == {epoch}
    positions = np.sort(batch.positions[batch.positions >= 0])
    first = positions[0]
    assert np.array_equal(positions, np.arange(first, first + number * (length - 2)))
    # What an epoch leaves out is less than a window on either side.
    assert first < length - 2
    assert num_tokens - positions[-1] - 1 < length - 2 + (length - 2) * shuffle


@settings(deadline=None)
@given(num_tokens=SIZES, length=LENGTHS, first=st.integers(0, 300), count=st.integers(1, 30))
def test_any_place_is_reached_at_once(num_tokens, length, first, count):
    samples = stream(num_tokens, length)
    whole, part = samples.batch(0, first + count), samples.batch(first, count)
    for name in PER_SAMPLE:
        assert np.array_equal(getattr(part, name), getattr(whole, name)[first:])
    for name in PER_TOKEN:
        assert rows(part, name) == rows(whole, name)[first:]


def test_a_window_with_its_specials():
    batch = stream(100, shuffle=False).batch(3, 2)
    assert batch.ids.tolist() == [0, *range(34, 42), 2, 0, *range(42, 50), 2]
    assert batch.positions.tolist() == [-1, *range(24, 32), -1, -1, *range(32, 40), -1]
    assert batch.lengths.tolist() == [10, 10]
    assert (batch.token_types, batch.next_labels) == (None, None)
    assert batch.samples.tolist() == [3, 4]
    assert {getattr(batch, name).dtype for name in PER_SAMPLE + PER_TOKEN} == {np.dtype("int64")}


def test_epochs_differ_in_order_and_in_cuts():
    samples = stream(1000)
    number = samples.samples_per_epoch
    epochs = [samples.starts(epoch * number, number)[0] for epoch in range(6)]
    for one, other in itertools.pairwise(epochs):
        assert not np.array_equal(one, other)
    assert len({int(starts.min()) for starts in epochs}) > 2


def test_a_batch_over_the_end_of_an_epoch():
    samples = stream(100)
    number = samples.samples_per_epoch
    batch = samples.batch(number - 2, 4)
    assert batch.epoch.tolist() == [0, 0, 1, 1]
    for part, first, count in ((slice(2), number - 2, 2), (slice(2, 4), number, 2)):
        assert rows(batch)[part] == rows(samples.batch(first, count))


def test_the_seed_decides_the_order():
    one, same, other = (stream(1000, seed=seed).starts(0, 50)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_exactly_one_window():
    samples = stream(8)
    assert samples.samples_per_epoch == 1
    assert samples.batch(0, 3).ids.tolist() == [0, *range(10, 18), 2] * 3


@pytest.mark.parametrize("shuffle", [True, False])
def test_fewer_tokens_than_a_window(shuffle):
    said = (
        r"here: split 'train' has 7 tokens, fewer than one sequence \(8 and two specials\); "
        "add text or lower sequence_length"
    )
    with pytest.raises(DataError, match=said):
        stream(7, shuffle=shuffle)


# What the order was when data had no sources; checkpoints of that time go on.


def test_the_order_of_one_source_never_changes():
    samples = stream(1000, seed=7)
    number = samples.samples_per_epoch
    starts, epochs = samples.starts(0, 3 * number)
    assert number == 124
    assert starts[:8].tolist() == [483, 611, 931, 379, 891, 979, 131, 491]
    assert starts[number : number + 8].tolist() == [818, 402, 690, 602, 250, 714, 522, 98]
    expected = "c03350d2ece55d6f4e66ec2647e2cf2327502b9cc90999ef2e8e0b631bf65415"
    assert hashlib.sha256(starts.astype("<i8").tobytes()).hexdigest() == expected
    assert epochs.tolist() == np.repeat([0, 1, 2], number).tolist()


def test_the_order_of_a_trillion_tokens_never_changes():
    samples = stream(10**12, 514, 3)
    assert samples.samples_per_epoch == 1_953_124_999
    starts, epochs = samples.starts(10**9, 3)
    assert (starts.tolist(), epochs.tolist()) == ([834156858654, 701097946910, 332143133982], [0, 0, 0])
    starts, epochs = samples.starts(5 * 10**9, 2)
    assert (starts.tolist(), epochs.tolist()) == ([65035879403, 165052409835], [2, 2])


def test_the_order_of_evaluation_never_changes():
    samples = stream(1000, seed=7, shuffle=False)
    starts, epochs = samples.starts(123, 4)
    assert samples.samples_per_epoch == 125
    assert (starts.tolist(), epochs.tolist()) == ([984, 992, 0, 8], [0, 0, 1, 1])


def test_repeats_of_one_source_change_the_length_of_an_epoch_and_no_order():
    twice = mixed([(1000, 2.0)])
    assert twice.samples_per_epoch == 2 * stream(1000).samples_per_epoch
    assert np.array_equal(twice.starts(0, 400), stream(1000).starts(0, 400))


SOURCES = st.lists(st.tuples(st.integers(10, 300), st.floats(0.1, 4)), min_size=2, max_size=5)


def place(samples, starts):
    """Number of the source that holds each whole window."""
    firsts = np.array([source.first for source in samples.data.sources])
    sources = np.searchsorted(firsts, starts, side="right") - 1
    for source in range(len(firsts)):
        mine, held = starts[sources == source], samples.data.sources[source]
        assert not len(mine) or mine.max() + samples.window <= held.first + held.num_tokens
    return sources


@settings(deadline=None)
@given(sources=SOURCES, length=LENGTHS, seed=st.integers(0, 5), shuffle=st.booleans())
def test_no_window_crosses_sources_and_prefixes_have_their_shares(sources, length, seed, shuffle):
    samples = mixed(sources, length, seed, shuffle=shuffle)
    number = samples.samples_per_epoch
    counts = np.array(list(samples.samples_by_source.values()))
    assert number == counts.sum()
    starts, _ = samples.starts(0, 2 * number)
    found = np.cumsum(place(samples, starts)[:, None] == np.arange(len(sources)), axis=0)
    ideal = np.arange(1, 2 * number + 1)[:, None] * counts / number
    assert np.abs(found - ideal).max() < 1.25
    assert np.array_equal(found[number - 1], counts)


@settings(deadline=None, max_examples=30)
@given(sources=SOURCES, length=LENGTHS, seed=st.integers(0, 5))
def test_an_epoch_of_a_source_is_a_permutation_of_its_windows(sources, length, seed):
    samples = mixed(sources, length, seed)
    starts, epochs = samples.starts(0, 3 * samples.samples_per_epoch)
    of_source = place(samples, starts)
    for source, (num_tokens, _) in enumerate(sources):
        mine, its_epochs = starts[of_source == source], epochs[of_source == source]
        number = max(1, (num_tokens - (samples.window - 1)) // samples.window)
        assert its_epochs.tolist() == [rank // number for rank in range(len(mine))]
        for epoch in range(its_epochs[-1] + 1):
            windows = np.sort(mine[its_epochs == epoch])
            assert len(np.unique(windows)) == len(windows)
            if len(windows) == number:
                assert (np.diff(windows) == samples.window).all()


@settings(deadline=None)
@given(
    sources=SOURCES, first=st.integers(0, 10**12), cuts=st.lists(st.integers(0, 9), min_size=1, max_size=5)
)
def test_a_batch_is_its_smaller_batches(sources, first, cuts):
    samples = mixed(sources)
    whole, parts, done = samples.batch(first, sum(cuts)), [], first
    for count in cuts:
        parts.append(samples.batch(done, count))
        done += count
    for name in PER_TOKEN + PER_SAMPLE:
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(getattr(whole, name), joined)


def test_a_small_source_comes_round_in_another_order_and_cut_elsewhere():
    samples = mixed([(4000, 1.0), (200, 8.0)])
    starts, epochs = samples.starts(0, samples.samples_per_epoch)
    inside = place(samples, starts) == 1
    rounds = [starts[inside & (epochs == epoch)] for epoch in range(8)]
    assert epochs[inside].max() == 7
    assert epochs[~inside].max() == 0
    assert len({tuple(round_) for round_ in rounds}) == 8
    assert len({int(round_.min()) for round_ in rounds}) > 2


def test_half_a_source_an_epoch_is_all_of_it_in_two():
    samples = mixed([(1608, 0.5), (800, 1.0)])
    starts, epochs = samples.starts(0, 2 * samples.samples_per_epoch)
    first = place(samples, starts) == 0
    assert samples.samples_by_source == {"source-0": 100, "source-1": 99}
    assert set(epochs[first].tolist()) == {0}
    assert len(np.unique(starts[first])) == 200


def test_sources_of_one_size_have_orders_of_their_own():
    samples = mixed([(800, 1.0), (800, 1.0)])
    starts, _ = samples.starts(0, samples.samples_per_epoch)
    of_source = place(samples, starts)
    one, other = starts[of_source == 0], starts[of_source == 1] - 800
    assert not np.array_equal(one - one.min(), other - other.min())


def test_evaluation_takes_turns_and_repeats_nothing():
    samples = mixed([(800, 1.0), (80, 4.0), (80, 0.0)], shuffle=False)
    assert samples.samples_by_source == {"source-0": 25, "source-1": 10}
    starts, _ = samples.starts(0, samples.samples_per_epoch)
    of_source = place(samples, starts)
    assert len(np.unique(starts)) == len(starts)
    assert of_source[:7].tolist().count(1) == 2
    for source in range(2):
        assert (np.diff(starts[of_source == source]) == samples.window).all()


def test_a_source_that_is_too_small_is_named_and_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        samples = mixed([(800, 1.0), (7, 5.0), (3, 0.0)])
    assert samples.samples_by_source == {"source-0": 99}
    (record,) = caplog.records
    assert record.getMessage() == (
        "here: source 'source-1' is left out of split 'train': its 7 tokens are fewer than one sequence"
    )


def test_no_source_holds_a_window():
    said = r"has 14 tokens, but no source in use has as many as one sequence \(8 and two specials\); add text"
    with pytest.raises(DataError, match=said):
        mixed([(7, 1.0), (7, 1.0)])


def test_a_batch_over_blocks_of_the_order():
    samples = stream(10**6)
    starts, _ = samples.starts(1000, 3000)
    assert np.array_equal(starts, [samples.starts(number, 1)[0][0] for number in range(1000, 4000)])
    assert len(samples.starts(0, 0)[0]) == 0
    assert len(samples.batch(5, 0).ids) == 0


@settings(deadline=None)
@given(num_tokens=SIZES, length=LENGTHS, first=st.integers(0, 10**9), tokens=st.integers(0, 40_000))
def test_a_budget_of_tokens(num_tokens, length, first, tokens):
    samples = stream(num_tokens, length)
    assert samples.count_for_budget(first, tokens) == max(1, tokens // length)
    assert samples.sample_lengths(first, 3).tolist() == [length] * 3


def test_what_an_epoch_leaves_out():
    assert stream(100).tokens_left_out == 100 - 11 * 8
    assert stream(100, shuffle=False).tokens_left_out == 100 - 12 * 8
    assert mixed([(100, 1.0), (7, 1.0), (5, 0.0)]).tokens_left_out == 100 - 11 * 8 + 7


def test_real_shards(data_folder):
    from maskwright.tokens.shards import open_split

    data = open_split(data_folder, "train")
    samples = SampleStream(data, 32, 0, 2, 7)
    batch = samples.batch(5, 9)
    everything = data.tokens(0, data.num_tokens)
    inside = batch.positions >= 0
    assert np.array_equal(batch.ids[inside], everything[batch.positions[inside]])
