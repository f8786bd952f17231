"""Input formats: every sentence once an epoch, whole where it fits, never over a border that counts."""

import itertools
import logging
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sentence_data import (
    ALL,
    BOS,
    ONE_PART,
    PAIRS,
    STORY,
    Known,
    cut_long,
    library,
    opened,
    own_parts,
    rows,
    same_batches,
    sentence_data,
)
from shard_helpers import EOS

from maskwright.core.errors import ConfigError, DataError, ShardError
from maskwright.tokens.formats import FormatConfig
from maskwright.tokens.stream import SampleStream

KEEP_DOCUMENTS = ("doc-sentences", *PAIRS)

DOCUMENTS = st.lists(st.lists(st.integers(1, 30), max_size=7), min_size=2, max_size=7)
SHARDS = st.lists(DOCUMENTS, min_size=1, max_size=2)
SOURCES = st.lists(SHARDS, min_size=1, max_size=3).map(
    lambda all_: {f"s{n}": one for n, one in enumerate(all_)}
)


def enough(sources):
    """Whether every source has two documents with a sentence."""
    return all(sum(map(any, itertools.chain(*shards))) > 1 for shards in sources.values())


property_test = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])


@pytest.mark.parametrize("name", ALL)
@property_test
@given(
    sources=SOURCES,
    length=st.integers(8, 40),
    seed=st.integers(0, 3),
    shuffle=st.booleans(),
    separators=st.sampled_from([1, 2]),
)
def test_samples_are_what_they_should_be(name, sources, length, seed, shuffle, separators):
    assume(enough(sources))
    known, options = Known(sources), {"seed": seed, "shuffle": shuffle, "separators": separators}
    with opened(sources, name, length=length, **options) as stream:
        every_sentence_comes_once_an_epoch(stream, known)
        samples_begin_and_end_with_sentences(stream, known, length - 2 - separators * (name in PAIRS))
        tokens_stand_where_they_should(stream, separators)
        if name in KEEP_DOCUMENTS:
            no_part_crosses_a_document(stream, known)
        if name in PAIRS:
            labels_are_true(stream, known)


def every_sentence_comes_once_an_epoch(stream, known):
    assert stream.tokens_left_out == 0
    assert stream.sample_lengths(0, stream.samples_per_epoch).max() <= stream.sequence_length
    for source, samples in stream.sources:
        numbers = np.arange(2 * samples.number, 3 * samples.number)
        pieces, found = samples.find(numbers), Counter()
        assert set(pieces.epochs.tolist()) == {2}
        for row in range(len(numbers)):
            labels = pieces.next_labels
            parts = pieces.starts.shape[1] if labels is None or labels[row] == 0 else 1
            for start, size in zip(pieces.starts[row, :parts], pieces.lengths[row, :parts], strict=True):
                found.update(range(start, start + size))
        assert max(found.values()) == 1
        assert set(found) - set(known.closings) == known.tokens(source.name)
        assert samples.num_used == len(found)


def samples_begin_and_end_with_sentences(stream, known, room):
    longest = room // 2 if stream.format.is_pair else room
    units = cut_long(known.sentences, longest)
    begins, ends = {start for start, _ in units}, {stop for _, stop in units}
    assert stream.cut_sentences == sum(stop - start > longest for start, stop in known.sentences)
    for start, stop, _ in own_parts(stream, 0, stream.samples_per_epoch):
        assert start in begins
        assert stop in ends


def tokens_stand_where_they_should(stream, separators):
    batch, pieces = stream.batch(3, 20), stream.pieces(3, 20)
    tokens = stream.data.tokens(0, stream.data.num_tokens)
    inside = batch.positions >= 0
    assert np.array_equal(batch.ids[inside], tokens[batch.positions[inside]])
    assert np.array_equal(batch.lengths, stream.sample_lengths(3, 20))
    for row, (ids, places) in enumerate(zip(rows(batch), rows(batch, "positions"), strict=True)):
        own = [
            list(range(start, start + size))
            for start, size in zip(pieces.starts[row].tolist(), pieces.lengths[row].tolist(), strict=True)
        ]
        assert (ids[0], ids[-1]) == (BOS, EOS)
        if not stream.format.is_pair:
            assert places == [-1, *own[0], -1]
            continue
        assert places == [-1, *own[0], *[-1] * separators, *own[1], -1]
        middle = 1 + len(own[0])
        assert ids[middle : middle + separators] == [EOS] * separators
        types = rows(batch, "token_types")[row]
        assert types == [0] * (middle + separators) + [1] * (len(own[1]) + 1)


def no_part_crosses_a_document(stream, known):
    pieces = stream.pieces(0, 2 * stream.samples_per_epoch)
    assert pieces.lengths.min() >= 1
    closings = set(known.closings)
    for start, size in zip(pieces.starts.ravel().tolist(), pieces.lengths.ravel().tolist(), strict=True):
        assert not closings & set(range(start, start + size))
        assert known.document[start] == known.document[start + size - 1]


def labels_are_true(stream, known):
    pieces = stream.pieces(0, 2 * stream.samples_per_epoch)
    ends = pieces.starts[:, 0] + pieces.lengths[:, 0]
    for (first, second), end, label in zip(pieces.starts.tolist(), ends, pieces.next_labels, strict=True):
        assert known.source[first] == known.source[second]
        assert (known.document[first] == known.document[second]) == (label == 0)
        assert label == 1 or second == end


@pytest.mark.parametrize("name", ALL)
@property_test
@given(
    sources=SOURCES, first=st.integers(0, 10**12), cuts=st.lists(st.integers(0, 6), min_size=1, max_size=4)
)
def test_a_batch_is_its_smaller_batches(name, sources, first, cuts):
    assume(enough(sources))
    with opened(sources, name) as stream:
        whole, parts, done = stream.batch(first, sum(cuts)), [], first
        for count in cuts:
            parts.append(stream.batch(done, count))
            done += count
    for field in ("ids", "positions", "lengths", "samples", "epoch", "token_types", "next_labels"):
        if name in ONE_PART and field in ("token_types", "next_labels"):
            assert getattr(whole, field) is None
        else:
            assert np.array_equal(getattr(whole, field), np.concatenate([getattr(p, field) for p in parts]))


@property_test
@given(sources=SOURCES, length=st.integers(8, 40))
def test_full_sentences_are_the_greedy_ones(sources, length):
    assume(enough(sources))
    known, room = Known(sources), length - 2
    with opened(sources, "full-sentences", length=length, shuffle=False) as stream:
        for source, samples in stream.sources:
            expected, begun = [], None
            for start, stop in itertools.chain(*known.documents_of(source.name)):
                for low, high in cut_long([(start, stop)], room):
                    if begun is not None and high - begun <= room:
                        expected[-1] = (begun, high)
                    else:
                        begun = low
                        expected.append((low, high))
            pieces = samples.find(np.arange(samples.number))
            found = zip(pieces.starts[:, 0].tolist(), pieces.lengths[:, 0].tolist(), strict=True)
            assert [(start, start + size) for start, size in found] == expected


@property_test
@given(sources=SOURCES, length=st.integers(8, 40))
def test_doc_sentences_are_the_greedy_ones(sources, length):
    assume(enough(sources))
    known, room = Known(sources), length - 2
    with opened(sources, "doc-sentences", length=length, shuffle=False) as stream:
        for source, samples in stream.sources:
            expected = []
            for document in known.documents_of(source.name):
                begun = None
                for low, high in cut_long(document, room):
                    if begun is not None and high - begun <= room:
                        expected[-1] = (begun, high)
                    else:
                        begun = low
                        expected.append((low, high))
            pieces = samples.find(np.arange(samples.number))
            found = zip(pieces.starts[:, 0].tolist(), pieces.lengths[:, 0].tolist(), strict=True)
            assert [(start, start + size) for start, size in found] == expected


def test_a_separator_stays_between_documents_and_a_sample_does_not_end_with_two():
    sources = {"web": [[[3, 4], [5], [6, 12]]]}
    with opened(sources, "full-sentences", length=18, shuffle=False) as stream:
        batch = stream.batch(0, 2)
    assert rows(batch) == [
        [BOS, 5, 6, 7, 8, 9, 10, 11, EOS, 5, 6, 7, 8, 9, EOS],
        [BOS, 5, 6, 7, 8, 9, 10, EOS],
    ]
    assert rows(batch, "positions") == [[-1, *range(13), -1], [-1, *range(14, 20), -1]]


# Budgets of tokens.


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    return library(tmp_path_factory.mktemp("library"))


def stream_of(data, name):
    return SampleStream(data, 64, BOS, EOS, 0, format=FormatConfig(name=name))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("tokens", [1, 64, 1000, 70_000])
def test_a_step_of_a_number_of_tokens(books, name, tokens):
    stream = stream_of(books[1], name)
    first = 0
    for _ in range(3):
        count = stream.count_for_budget(first, tokens)
        lengths = stream.sample_lengths(first, count + 1)
        assert count == 1 or lengths[:-1].sum() <= tokens
        assert lengths.sum() > tokens
        first += count


@pytest.mark.parametrize("name", ALL)
def test_lengths_need_no_tokens(books, name, monkeypatch):
    stream = stream_of(books[1], name)
    expected = stream.batch(7, 30).lengths
    monkeypatch.setattr(stream.data, "tokens", lambda *_: pytest.fail("tokens were read"))
    other = stream_of(books[1], name)
    assert np.array_equal(other.sample_lengths(7, 30), expected)
    assert other.count_for_budget(7, int(expected.sum())) == 30


# Sources and their shares.


@pytest.mark.parametrize("name", ALL)
def test_sources_take_turns_in_their_shares(books, name):
    known, stream = Known(books[0]), stream_of(books[1], name)
    counts = {source.name: samples.number for source, samples in stream.sources}
    assert stream.samples_by_source == {"web": counts["web"], "wiki": 3 * counts["wiki"]}
    pieces = stream.pieces(0, stream.samples_per_epoch)
    for starts, lengths in zip(pieces.starts.tolist(), pieces.lengths.tolist(), strict=True):
        names = {
            known.source[place]
            for start, n in zip(starts, lengths, strict=True)
            for place in (start, start + n - 1)
        }
        assert len(names) == 1
    of_wiki = pieces.starts[:, 0] >= known.source.index("wiki")
    assert set(pieces.epochs[of_wiki].tolist()) == {0, 1, 2}
    assert set(pieces.epochs[~of_wiki].tolist()) == {0}


@pytest.mark.parametrize("name", ALL)
def test_how_shards_are_cut_changes_no_sample(name):
    whole = {
        source: [[document for documents in shards for document in documents]]
        for source, shards in STORY.items()
    }
    with opened(STORY, name) as one, opened(whole, name) as other:
        assert same_batches(one.batch(0, 60), other.batch(0, 60))


@pytest.mark.parametrize("name", PAIRS)
def test_a_source_of_one_document_gives_no_pairs(name, caplog):
    sources = {"web": STORY["web"], "book": [[[5, 6, 7], []]]}
    with caplog.at_level(logging.WARNING), opened(sources, name) as stream:
        assert list(stream.samples_by_source) == ["web"]
        assert stream.tokens_left_out == 20
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "source 'book' is left out of split 'train': it has a single document, and a random second part must "
        "be of another one"
    ]
    with (
        pytest.raises(
            DataError, match=r"gives no sample of format '.*': it has a single document.*; add text or"
        ),
        opened({"book": [[[5, 6, 7]]]}, name),
    ):
        pass


def test_a_source_without_sentences(caplog):
    with caplog.at_level(logging.WARNING), opened({**STORY, "none": [[[], []]]}, "doc-sentences") as stream:
        assert list(stream.samples_by_source) == ["web", "wiki"]
    assert "source 'none' is left out of split 'train': it has no sentence" in caplog.text


def test_data_without_sentences(tmp_path):
    data = sentence_data(tmp_path, STORY, sentences=False)
    said = (
        "was prepared without the ends of sentences, which format 'doc-sentences' needs; "
        "prepare it again with sentences=true, or take format.name=windows"
    )
    with pytest.raises(ShardError, match=said):
        SampleStream(data, 24, BOS, EOS, 1, format=FormatConfig(name="doc-sentences"))
    assert SampleStream(data, 24, BOS, EOS, 1).samples_per_epoch > 0


@pytest.mark.parametrize("name", ALL)
def test_a_sequence_length_without_room(name):
    length, specials = (2, 2) if name in ONE_PART else (5, 4)
    said = f'"sequence_length" is {length}, too few for format {name!r} with its {specials} specials'
    with pytest.raises(ConfigError, match=said), opened(STORY, name, length=length):
        pass


@pytest.mark.parametrize(
    ("name", "fills"),
    [
        ("windows", False),
        ("full-sentences", False),
        ("doc-sentences", True),
        ("segment-pair", False),
        ("sentence-pair", True),
    ],
)
def test_which_formats_fill_a_step_with_tokens(name, fills):
    assert FormatConfig(name=name).fills_tokens is fills
    assert FormatConfig(name=name, steps_by_tokens=not fills).fills_tokens is not fills
