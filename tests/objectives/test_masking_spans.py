"""Spans: against a slow reference, at the asked rate, never over the end of a document."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masking_doubles import EOS, MASK, make_masker, make_text

from maskwright.core.keyed import derive_key, hash64, to_unit
from maskwright.objectives.masking.spans import Spans, begin_chance, reach_chances

TEXT = make_text([700, 3, 0, 1, 250, 900, 40, 9, 9, 9] * 3)
PAPER = (0.2, 10)


def draw(key, index):
    return float(to_unit(hash64(key, np.array([index], np.int64)))[0])


def span_length(chance, p, longest):
    """Invert the geometric law, with lengths above the longest drawn again: summed up, not solved."""
    weights = [p * (1 - p) ** (length - 1) for length in range(1, longest + 1)]
    over = 0.0
    for length in range(longest, 0, -1):
        over += weights[length - 1] / sum(weights)
        if chance < over:
            return length
    return 1


def slow_spans(text, seed, epoch, rate, p, longest):
    """Begin spans word by word, in each document by itself, and note what they cover and from where."""
    begin, length = derive_key(seed, "span", epoch), derive_key(seed, "span length", epoch)
    leaders = {}
    for words in text.words():
        opening = words[0][0]
        imagined = [-2 - (opening * (longest - 1) + before - 1) for before in range(longest - 1, 0, -1)]
        sources = [*imagined, *(first for first, _ in words)]
        for number, source in enumerate(sources):
            if draw(begin, source) < begin_chance(rate, p, longest):
                reach = number + span_length(draw(length, source), p, longest)
                for covered in range(number, min(reach, len(sources))):
                    if covered >= len(imagined):
                        first, end = words[covered - len(imagined)]
                        leaders |= {place: source for place in range(first, end) if text.ids[place] != EOS}
    return leaders


@pytest.mark.parametrize(
    ("epoch", "rate", "p", "longest"),
    [(0, 0.15, *PAPER), (7, 0.4, *PAPER), (-1, 0.03, 0.5, 3), (2, 0.9, 0.1, 20), (1, 0.2, 0.2, 1)],
)
def test_the_same_spans_as_one_after_the_other(epoch, rate, p, longest):
    masker = make_masker(TEXT, 5, unit="span", span_p=p, span_max=longest)
    leaders = slow_spans(TEXT, 5, epoch, rate, p, longest)
    found = masker.select(TEXT.ids, TEXT.positions, epoch, rate)
    assert np.flatnonzero(found).tolist() == sorted(leaders)
    given_leaders = masker.unit.draw(TEXT.positions, epoch, rate).leaders
    assert {place: int(given_leaders[place]) for place in leaders} == leaders


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 99),
    rate=st.floats(0.01, 0.95),
    longest=st.integers(1, 64),
    pieces=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=4),
)
def test_spans_do_not_depend_on_the_window(lengths, share, seed, rate, longest, pieces):
    text = make_text(lengths, seed, share)
    masker = make_masker(text, seed, unit="span", span_max=longest)
    whole = masker.mask(text.ids, text.positions, 1, rate)
    chosen = [np.arange(*sorted(piece)) for piece in pieces]
    places = np.concatenate([np.empty(0, int), *chosen])
    places = places[places < len(text.ids)]
    part = masker.mask(text.ids[places], text.positions[places], 1, rate)
    assert np.array_equal(part.selected, whole.selected[places])
    assert np.array_equal(part.seen, whole.seen[places])


@pytest.mark.parametrize("longest", [1, 2, 4, 10])
def test_each_token_alone_has_the_answer_of_the_whole(longest):
    text = make_text([60, 0, 3, 90], 4, 0.7)
    # Nearly all spans are as long as they may be, so the farthest word counts.
    masker = make_masker(text, unit="span", span_p=0.01, span_max=longest)
    whole = masker.unit.draw(text.positions, 0, 0.6)
    alone = [masker.unit.draw(text.positions[place : place + 1], 0, 0.6) for place in range(len(text.ids))]
    assert np.array_equal(np.concatenate([draw.chosen for draw in alone]), whole.chosen)
    assert np.array_equal(np.concatenate([draw.leaders for draw in alone]), whole.leaders)


def test_a_document_does_not_know_what_is_before_it():
    first, second = make_text([300], 1), make_text([300], 2)
    both = make_text([300, 300], 3)
    for text, here in ((first, slice(0, 301)), (second, slice(301, 602))):
        for name in ("ids", "begins"):
            getattr(both, name)[here] = getattr(text, name)
    masks = []
    for changed in (False, True):
        if changed:  # other words in the first document
            both.begins[1:300] = ~both.begins[1:300]
        masks.append(
            [
                make_masker(both, unit="span").select(both.ids, both.positions, epoch, 0.4)
                for epoch in range(30)
            ]
        )
    for before, after in zip(*masks, strict=True):
        assert np.array_equal(before[301:], after[301:])
    assert not np.array_equal(masks[0][0][:301], masks[1][0][:301])


def test_lengths_are_those_of_the_paper():
    reaches = reach_chances(*PAPER)
    assert len(reaches) == 10
    assert reaches[0] == 1
    # A mean is the sum of the chances of being longer than 0, 1, 2, ...
    assert sum(reaches) == pytest.approx(3.797, abs=5e-4)
    chances = -np.diff([*reaches, 0.0])
    geometric = np.array([0.2 * 0.8**length for length in range(10)])
    assert chances == pytest.approx(geometric / geometric.sum(), rel=1e-12)


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.4, 0.8, 0.99])
@pytest.mark.parametrize(("p", "longest"), [PAPER, (0.5, 3), (0.05, 64), (0.2, 1)])
def test_the_chance_to_begin_gives_the_rate(rate, p, longest):
    chance = begin_chance(rate, p, longest)
    assert 1 - math.prod(1 - chance * reach for reach in reach_chances(p, longest)) == pytest.approx(
        rate, rel=1e-12
    )


@pytest.mark.parametrize("rate", [0.15, 0.4])
@pytest.mark.parametrize("lengths", [[5000] * 40, [6] * 30_000])
def test_the_asked_share_is_selected_also_at_the_beginning_of_documents(lengths, rate):
    text = make_text(lengths, 1)
    found = make_masker(text, unit="span").mask(text.ids, text.positions, 2, rate)
    expected = found.expectation()
    assert expected.targets == pytest.approx(sum(lengths) * rate, rel=1e-12)
    assert abs(found.selected.sum() - expected.targets) <= 5 * math.sqrt(expected.variance)
    if len(lengths) > 1000:  # each document is drawn for by itself
        first = found.selected[text.opens]
        assert abs(first.sum() - len(first) * rate) < 5 * math.sqrt(len(first) * rate * (1 - rate))


@pytest.mark.parametrize(("p", "longest", "rate"), [(*PAPER, 0.15), (0.5, 3, 0.4), (0.2, 1, 0.15)])
def test_the_variance_is_that_of_the_number_of_tokens(p, longest, rate):
    text = make_text([3000], 3, 1.0)
    masker = make_masker(text, unit="span", span_p=p, span_max=longest)
    counts = [masker.select(text.ids, text.positions, epoch, rate).sum() for epoch in range(1200)]
    expected = masker.mask(text.ids, text.positions, 0, rate).expectation()
    assert np.var(counts) == pytest.approx(expected.variance, rel=0.2)
    assert abs(np.mean(counts) - expected.targets) < 5 * math.sqrt(expected.variance / len(counts))


def test_words_next_to_each_other_are_masked_together():
    spans = Spans(0, TEXT, *PAPER)
    assert spans.clustering(0.15) > 3
    assert Spans(0, TEXT, 0.2, 1).clustering(0.15) == 1
    text = make_text([50_000], 1, 1.0)
    selected = make_masker(text, unit="span").select(text.ids, text.positions, 0)[:-1]
    after = selected[1:][selected[:-1]].mean()
    assert after > 0.7


def test_a_span_is_replaced_as_one():
    text = make_text([100_000], 2, 0.5)
    masker = make_masker(text, unit="span", random_share=0.2)
    found = masker.mask(text.ids, text.positions, 0, 0.15)
    leaders = masker.unit.draw(text.positions, 0, 0.15).leaders[found.selected]
    masked = found.seen[found.selected] == MASK
    spans, inverse = np.unique(leaders, return_inverse=True)
    hits, sizes = np.bincount(inverse, masked), np.bincount(inverse)
    assert ((hits == 0) | (hits == sizes)).all()
    share = (hits > 0).mean()
    assert abs(share - 0.8) < 5 * math.sqrt(0.8 * 0.2 / len(spans))
    # The random tokens of a span are different ones.
    drawn = np.flatnonzero(hits == 0)
    several = [found.seen[found.selected][inverse == span] for span in drawn[sizes[drawn] > 3][:50]]
    assert all(len(set(ids.tolist())) > 1 for ids in several)
