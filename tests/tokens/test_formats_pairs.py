"""Pairs for next-sentence prediction: labels, partners, lengths, and what an epoch brings anew."""

import numpy as np
import pytest
from sentence_data import BOS, PAIRS, Known, cut_long, library, opened
from shard_helpers import EOS

from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.stream import SampleStream


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    return library(tmp_path_factory.mktemp("library"))


def pairs_of(books, name, seed=0, *, length=64, shuffle=True, **options):
    config = FormatConfig(name=name, **options)
    return SampleStream(books[1], length, BOS, EOS, seed, shuffle=shuffle, format=config)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_labels_are_half_and_half(books, name, shuffle):
    stream = pairs_of(books, name, shuffle=shuffle)
    for _, samples in stream.sources:
        labels = samples.find(np.arange(samples.number)).next_labels
        assert abs(labels.sum() - samples.number / 2) <= 1
    # Mixed, not one after the other: each run of a thousand samples by the binomial law, at 5 sigma.
    labels = stream.batch(0, min(1000, stream.samples_per_epoch)).next_labels
    assert abs(labels.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(labels))
    changes = np.count_nonzero(np.diff(labels))
    assert abs(changes / (len(labels) - 1) - 0.5) < 5 * 0.5 / np.sqrt(len(labels) - 1)


def test_runs_of_one_unit_are_first_parts_of_random_pairs_and_the_rest_makes_up_for_them():
    sources = {"web": [[[5]] * 30 + [[5, 5]] * 90]}
    with opened(sources, "sentence-pair") as stream:
        (samples,) = (samples for _, samples in stream.sources)
        assert (samples.num_divided, samples.number) == (20, 140)
        labels = samples.find(np.arange(140)).next_labels
        assert labels.sum() == 70
    with opened({"web": [[[5]] * 30 + [[5, 5]] * 9]}, "sentence-pair") as stream:
        (samples,) = (samples for _, samples in stream.sources)
        assert (samples.num_divided, samples.number) == (0, 39)
        assert samples.find(np.arange(39)).next_labels.sum() == 30


@pytest.mark.parametrize("name", PAIRS)
def test_epochs_pair_anew_and_seeds_differ(books, name):
    def pairs(seed, epoch):
        (_, samples), *_ = pairs_of(books, name, seed).sources
        pieces = samples.find(np.arange(samples.number) + epoch * samples.number)
        return {tuple(row) for row in pieces.starts[pieces.next_labels == 1].tolist()}, pieces.starts.tolist()

    (one, order), (same, same_order) = pairs(0, 0), pairs(0, 0)
    assert (one, order) == (same, same_order)
    for seed, epoch in ((0, 1), (1, 0)):
        other, other_order = pairs(seed, epoch)
        assert order != other_order
        assert len(one & other) < 0.05 * len(one)


@pytest.mark.parametrize("name", PAIRS)
def test_without_shuffling_epochs_are_the_same(books, name):
    (_, samples), *_ = pairs_of(books, name, shuffle=False).sources
    one, two = (samples.find(np.arange(samples.number) + epoch * samples.number) for epoch in range(2))
    assert np.array_equal(one.starts, two.starts)
    assert np.array_equal(one.lengths, two.lengths)
    assert set(two.epochs.tolist()) == {1}


def test_random_parts_come_from_all_over_the_source(books):
    (source, samples), *_ = pairs_of(books, "segment-pair").sources
    pieces = samples.find(np.arange(6 * samples.number))
    second = pieces.starts[pieces.next_labels == 1, 1] - source.first
    counts = np.histogram(second, bins=8, range=(0, source.num_tokens))[0]
    expected = len(second) / 8
    # Runs are not quite evenly spread, so a little more than the binomial law allows.
    assert np.abs(counts - expected).max() < 0.25 * expected


def test_the_length_of_a_segment_pair_does_not_tell_its_label():
    rng = np.random.default_rng(6)
    sources = {"web": [[rng.integers(4, 12, 30).tolist() for _ in range(80)]]}
    with opened(sources, "segment-pair", length=64, short_share=0.0) as stream:
        batch = stream.batch(0, stream.samples_per_epoch)
    true, random = (batch.lengths[batch.next_labels == label] for label in (0, 1))
    assert abs(true.mean() - random.mean()) < 0.05 * true.mean()
    shares = [abs(np.mean(true >= length) - np.mean(random >= length)) for length in range(64)]
    assert max(shares) < 0.2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_short_segment_pairs(share):
    sources = {"web": [[[2] * 3000] * 2]}
    with opened(sources, "segment-pair", length=104, short_share=share) as stream:
        ((_, samples),) = stream.sources
        lengths = samples.section.lengths
    full = np.mean(lengths >= 99)
    # A short run has any length from 2 to 100 with the same chance, so nearly all are told.
    expected = 1 - share * 97 / 99
    assert abs(full - expected) <= 5 * np.sqrt(expected * (1 - expected) / len(lengths)) + 2 / len(lengths)


def test_sentence_pairs_are_single_sentences(books):
    known = Known(books[0])
    units = set(cut_long(known.sentences, 30))
    pieces = pairs_of(books, "sentence-pair").pieces(0, 500)
    for starts, lengths in zip(pieces.starts.tolist(), pieces.lengths.tolist(), strict=True):
        for start, size in zip(starts, lengths, strict=True):
            assert (start, start + size) in units


def test_random_segments_are_whole_sentences_but_where_nothing_fits(books):
    known = Known(books[0])
    units = cut_long(known.sentences, 30)
    begins, ends = {start for start, _ in units}, {stop for _, stop in units}
    pieces = pairs_of(books, "segment-pair").pieces(0, 1000)
    chosen = pieces.next_labels == 1
    starts, lengths = pieces.starts[chosen], pieces.lengths[chosen]
    assert set(starts[:, 1].tolist()) <= begins
    whole = np.isin(starts[:, 1] + lengths[:, 1], list(ends))
    full = lengths.sum(axis=1) == 60
    assert (whole | full).all()
    assert whole.mean() > 0.9
