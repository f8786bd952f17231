"""Near-duplicates from end to end, against exact Jaccard and against `datasketch`, on planted copies."""

from __future__ import annotations

import numpy as np
import pytest
from dedup_helpers import find_near, places_of, plain_words, split_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.corpus.dedup.bands import Bands, choose_bands, meeting_probability
from maskwright.corpus.dedup.buckets import bucket_ranges

WHOLE = [range(256)]
THRESHOLD = 0.8


def make_text(generator, num_words, chinese):
    if chinese:
        return "".join(chr(0x4E00 + number) for number in generator.integers(0, 3000, num_words))
    return " ".join(f"w{number}" for number in generator.integers(0, 5000, num_words))


def edit(generator, text, num_edits, chinese):
    """Replace some words, each far from the others, so that each changes as many shingles as it has words."""
    words = list(text) if chinese else text.split()
    for place in np.linspace(0, len(words) - 1, num_edits + 2)[1:-1].astype(int):
        words[place] = "新" if chinese else "edited"
    return ("" if chinese else " ").join(words)


def shingle_set(text, ngram=5):
    words = plain_words(text)
    return {tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)}


def jaccard(left, right):
    left, right = shingle_set(left), shingle_set(right)
    return len(left & right) / len(left | right)


@pytest.fixture(scope="module", params=[False, True], ids=["words", "characters"])
def planted(request):
    """240 texts, each followed by a copy with 1 to 24 edits: similarities from 0.97 to 0.43."""
    generator = np.random.default_rng(11)
    texts = []
    for number in range(240):
        text = make_text(generator, 320, request.param)
        texts += [text, edit(generator, text, 1 + number % 24, request.param)]
    exact = np.array([jaccard(*texts[start : start + 2]) for start in range(0, 480, 2)])
    assert exact.min() < 0.5
    assert exact.max() > 0.95
    return texts, exact


def found_pairs(drops):
    return {(keeper, row) if keeper < row else (row, keeper) for _, row, _, keeper, _ in drops.tolist()}


def test_recall_and_precision_against_exact_jaccard(tmp_path, planted):
    texts, exact = planted
    bands = choose_bands(128, THRESHOLD)
    drops, _ = find_near(tmp_path, [texts], bands, WHOLE, min_similarity=THRESHOLD)
    pairs = found_pairs(drops)
    # Unrelated texts are never joined.
    assert all(right == left + 1 and left % 2 == 0 for left, right in pairs)
    found = np.array([(start, start + 1) in pairs for start in range(0, 480, 2)])
    # The estimate has a standard error of 0.035 at the threshold; three of them away, all is certain.
    assert found[exact > 0.905].all()
    assert not found[exact < 0.68].any()
    # On either side of the threshold, and over everything.
    above, below = exact >= THRESHOLD, exact < THRESHOLD
    assert found[above].mean() >= 0.85
    assert found[below].mean() <= 0.1
    assert above[found].mean() >= 0.85


def test_meets_what_datasketch_meets(tmp_path, planted):
    from datasketch import MinHash, MinHashLSH

    texts, exact = planted
    bands = Bands(16, 8)
    index = MinHashLSH(num_perm=128, params=tuple(bands))
    sketches = []
    for number, text in enumerate(texts):
        sketch = MinHash(128, seed=7)
        sketch.update_batch([" ".join(shingle).encode() for shingle in sorted(shingle_set(text))])
        sketches.append(sketch)
        index.insert(number, sketch)
    theirs = np.array([start + 1 in index.query(sketches[start]) for start in range(0, 480, 2)])
    drops, _ = find_near(tmp_path, [texts], bands, WHOLE, min_similarity=0.0)
    pairs = found_pairs(drops)
    ours = np.array([(start, start + 1) in pairs for start in range(0, 480, 2)])
    # Both meet by chance, at the rate of the curve; they need not meet in the same pairs.
    expected = np.array([meeting_probability(bands, value) for value in exact])
    error = 4 * np.sqrt((expected * (1 - expected)).sum())
    assert abs(ours.sum() - expected.sum()) < error
    assert abs(theirs.sum() - expected.sum()) < error
    assert abs(int(ours.sum()) - int(theirs.sum())) < 1.5 * error
    certain = exact > 0.93
    assert ours[certain].all()
    assert theirs[certain].all()


WORDS = ["one", "two", "three", "four", "five", "six"]
SMALL_TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), min_size=1, max_size=12)


@settings(max_examples=30)
@given(SMALL_TEXTS, st.sets(st.integers(0, 14), max_size=4), st.sampled_from([1, 2, 4]), st.booleans())
def test_results_do_not_depend_on_how_work_was_cut(tmp_path_factory, texts, cuts, num_tasks, reverse):
    bands = Bands(4, 2)
    folder = tmp_path_factory.mktemp("near")
    whole, told = find_near(folder / "a", [texts], bands, WHOLE, min_similarity=0.5)
    parts = split_rows(texts, cuts)
    places = places_of(parts)
    ranges = bucket_ranges(num_tasks, 1, 1)
    drops, told_parts = find_near(folder / "b", parts, bands, ranges, min_similarity=0.5, reverse=reverse)
    expected = [(*places[row], *places[keeper], size) for _, row, _, keeper, size in whole.tolist()]
    assert drops.tolist() == expected
    assert told_parts[:3] == told[:3]
    assert [cluster.size for cluster in told_parts.largest] == [cluster.size for cluster in told.largest]


def test_the_longest_copy_stays_wherever_it_is(tmp_path):
    text = make_text(np.random.default_rng(1), 200, False)
    parts = [[text], ["something else entirely, with its own words", text + " and a longer end"], [text]]
    bands = choose_bands(128, THRESHOLD)
    drops, found = find_near(tmp_path / "a", parts, bands, WHOLE, min_similarity=THRESHOLD)
    assert drops.tolist() == [(0, 0, 1, 1, 3), (2, 0, 1, 1, 3)]
    assert found.clusters == 1
    excluded = {1: np.array([1], np.uint32)}
    options = {"min_similarity": THRESHOLD, "excluded": excluded, "rule": "first"}
    drops, _ = find_near(tmp_path / "b", parts, bands, WHOLE, **options)
    assert drops.tolist() == [(2, 0, 0, 0, 2)]
