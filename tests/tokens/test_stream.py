"""Sample order as a pure function: every token once an epoch, any place reached at once."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.errors import DataError
from maskwright.tokens.stream import SampleStream


class Row:
    """A split whose token at position i has the id 10 + i."""

    folder, split = "here", "train"
    manifest = SimpleNamespace(fingerprint="f")

    def __init__(self, num_tokens):
        self.num_tokens = num_tokens

    def tokens(self, start, count):
        assert 0 <= start <= start + count <= self.num_tokens
        return np.arange(10 + start, 10 + start + count)


def stream(num_tokens, length=10, seed=1, *, shuffle=True):
    return SampleStream(Row(num_tokens), length, 0, 2, seed, shuffle=shuffle)


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
    for name in ("ids", "positions", "samples", "epoch"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[first:])


def test_a_window_with_its_specials():
    batch = stream(100, shuffle=False).batch(3, 2)
    assert batch.ids.tolist() == [[0, *range(34, 42), 2], [0, *range(42, 50), 2]]
    assert batch.positions.tolist() == [[-1, *range(24, 32), -1], [-1, *range(32, 40), -1]]
    assert batch.samples.tolist() == [3, 4]
    assert {array.dtype for array in (batch.ids, batch.positions, batch.samples, batch.epoch)} == {
        np.dtype("int64")
    }


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
        assert np.array_equal(batch.ids[part], samples.batch(first, count).ids)


def test_the_seed_decides_the_order():
    one, same, other = (stream(1000, seed=seed).starts(0, 50)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_exactly_one_window():
    samples = stream(8)
    assert samples.samples_per_epoch == 1
    assert samples.batch(0, 3).ids.tolist() == [[0, *range(10, 18), 2]] * 3


@pytest.mark.parametrize("shuffle", [True, False])
def test_fewer_tokens_than_a_window(shuffle):
    said = (
        r"here: split 'train' has 7 tokens, fewer than one sequence \(8 and two specials\); "
        "add text or lower sequence_length"
    )
    with pytest.raises(DataError, match=said):
        stream(7, shuffle=shuffle)


def test_real_shards(data_folder):
    from maskwright.tokens.shards import open_split

    data = open_split(data_folder, "train")
    samples = SampleStream(data, 32, 0, 2, 7)
    batch = samples.batch(5, 9)
    everything = data.tokens(0, data.num_tokens)
    inside = batch.positions >= 0
    assert np.array_equal(batch.ids[inside], everything[batch.positions[inside]])
