from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_helpers import document

from maskwright.corpus.document import Drop
from maskwright.corpus.rules.duplicate_ngrams import DuplicateNgrams, duplicate_ngrams_step
from maskwright.corpus.rules.measured import Measured
from maskwright.corpus.rules.ngrams import exceeded_duplicates, exceeded_top, levels_of
from maskwright.corpus.rules.top_ngrams import TopNgrams, top_ngrams_step

# Few different words, so that they repeat at every size.
WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd", "e"]), max_size=60)
REPEATING = st.builds(
    lambda head, part, n, tail: head + part * n + tail, WORDS, WORDS, st.integers(0, 4), WORDS
)


def grams(words, size):
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def covered(words, places, size):
    inside = {i for place in places for i in range(place, place + size)}
    return sum(len(words[i]) for i in inside) / max(1, sum(map(len, words)))


def top_share(words, size):
    counts = Counter(grams(words, size))
    often = max(counts.values(), default=0)
    if often < 2:
        return [0.0]
    length = max(sum(map(len, gram)) for gram, count in counts.items() if count == often)
    best = [g for g, c in counts.items() if c == often and sum(map(len, g)) == length]
    return [covered(words, [i for i, g in enumerate(grams(words, size)) if g == gram], size) for gram in best]


def duplicate_share(words, size):
    seen, later = set(), []
    for place, gram in enumerate(grams(words, size)):
        if gram in seen:
            later.append(place)
        seen.add(gram)
    return covered(words, later, size)


@given(REPEATING, st.integers(1, 6), st.floats(0, 1))
def test_top_share_is_that_of_counting_all(words, size, limit):
    found = exceeded_top(Measured(" ".join(words)), "words", {size: limit})
    values = top_share(words, size)
    if found is None:
        assert min(values) <= limit + 1e-12
    else:
        assert found[0] == size
        assert any(found[1] == pytest.approx(value) for value in values)
        assert found[1] > limit


@given(REPEATING, st.integers(1, 12), st.floats(0, 1))
def test_duplicate_share_is_that_of_counting_all(words, size, limit):
    found = exceeded_duplicates(Measured(" ".join(words)), "words", {size: limit})
    value = duplicate_share(words, size)
    if found is None:
        assert value <= limit + 1e-12
    else:
        assert found == (size, pytest.approx(value))
        assert value > limit


@given(REPEATING)
def test_one_walk_for_several_sizes_gives_the_same(words):
    limits = dict.fromkeys(range(1, 11), 0.3)
    found = exceeded_duplicates(Measured(" ".join(words)), "words", limits)
    first = next((n for n in limits if duplicate_share(words, n) > 0.3 + 1e-12), None)
    assert (found and found[0]) == first


@given(st.text(st.sampled_from("的是山水 \n"), max_size=80), st.integers(1, 9), st.floats(0, 1))
def test_characters_are_units_as_words_are(text, size, limit):
    apart = " ".join("".join(text.split()))
    assert exceeded_duplicates(Measured(text), "characters", {size: limit}) == exceeded_duplicates(
        Measured(apart), "words", {size: limit}
    )


def test_the_walk_can_be_asked_back():
    measured = Measured("a b a b a b c")
    walk = levels_of(measured, "words")
    assert walk is levels_of(measured, "words")
    assert walk.level(3).places.tolist() == [0, 1, 2, 3]
    assert set(walk.level(2).places.tolist()) >= {0, 1, 2, 3, 4}


def test_the_order_of_words_inside_an_ngram_matters():
    words = ["a", "b", "c", "d", "a", "c", "b", "d", "b", "a", "c", "d"]
    assert duplicate_share(words, 4) == 0
    assert exceeded_duplicates(Measured(" ".join(words)), "words", {4: 0.0}) is None


def test_many_words_keep_the_answer_exact():
    words = [f"w{i}" for i in range(50_000)] + ["again"] * 3 + [f"w{i}" for i in range(10_000)]
    value = duplicate_share(words, 5)
    assert exceeded_duplicates(Measured(" ".join(words)), "words", {5: 0.1}) == (5, pytest.approx(value))


# 20 words of 5 letters; the pair makes up 2 of 20 each time it stands there.
def pairs(times):
    others = [f"w{i:04}" for i in range(20 - 2 * times)]
    return (
        " ".join(word for i in range(times) for word in ("aaaaa", "bbbbb", others[i]))
        + " "
        + " ".join(others[times:])
    )


def test_top_two_words_at_the_limit_are_kept():
    step = top_ngrams_step(TopNgrams())
    assert step(document(pairs(2))) == document(pairs(2))
    assert step(document(pairs(3))) == Drop("top_2gram", "0.300 of characters, at most 0.2")


@pytest.mark.parametrize(("size", "limit"), [(2, "0.2"), (3, "0.18"), (4, "0.16")])
def test_each_size_has_its_own_reason(size, limit):
    off = {f"max_share_{n}": 1.0 for n in (2, 3, 4) if n != size}
    result = top_ngrams_step(TopNgrams(**off))(document("one two three four five " * 4))
    assert isinstance(result, Drop)
    assert result.reason == f"top_{size}gram"
    assert result.detail.endswith(f" of characters, at most {limit}")


def test_the_most_frequent_counts_not_the_longest():
    others = " ".join(f"{i:04}" for i in range(30))
    text = f"a b x1 a b x2 a b x3 internationalisation considered z internationalisation considered {others}"
    assert top_ngrams_step(TopNgrams(max_share_3=1, max_share_4=1))(document(text)) == document(text)


def test_words_that_occur_once_are_no_repetition():
    assert top_ngrams_step(TopNgrams(max_share_2=0))(document("two words")) == document("two words")


PASSAGE = "the quick brown fox jumps over the lazy dog while seven wizards box"


def fresh(count, start=0):
    return " ".join(f"n{i:03}" for i in range(start, start + count))


@pytest.mark.parametrize("size", range(5, 11))
def test_a_repeated_passage_counts_without_its_first_time(size):
    text = f"{PASSAGE} {fresh(20)} {PASSAGE}"
    part = len(PASSAGE.replace(" ", ""))
    expected = part / (2 * part + 80)
    settings = DuplicateNgrams(**{f"max_share_{n}": 1.0 for n in range(5, 11) if n != size})
    limit = getattr(settings, f"max_share_{size}")
    assert duplicate_ngrams_step(settings)(document(text)) == Drop(
        f"duplicate_{size}gram", f"{expected:.3f} of characters, at most {limit:g}"
    )


@given(st.integers(0, 400))
def test_adding_fresh_words_only_helps(count):
    step = duplicate_ngrams_step(DuplicateNgrams())
    text = f"{PASSAGE} {fresh(count)} {PASSAGE}"
    longer = f"{text} {fresh(50, 600)}"
    if step(document(text)) == document(text):
        assert step(document(longer)) == document(longer)


@given(REPEATING, st.floats(0, 1), st.floats(0, 1))
def test_a_wider_limit_keeps_no_less(words, one, two):
    text = document(" ".join(words))
    narrow, wide = sorted((one, two))
    kept = []
    for limit in (narrow, wide):
        settings = DuplicateNgrams(**{f"max_share_{n}": limit for n in range(5, 11)})
        kept.append(duplicate_ngrams_step(settings)(text) is text)
    assert kept in ([False, False], [False, True], [True, True])


@pytest.mark.parametrize("text", ["", "one", "one two", "a b c d"])
def test_short_texts_pass(text):
    assert top_ngrams_step(TopNgrams())(document(text)) == document(text)
    assert duplicate_ngrams_step(DuplicateNgrams())(document(text)) == document(text)
