from __future__ import annotations

import numpy as np
import pytest
from dedup_helpers import TEXTS, plain_words
from hypothesis import given
from hypothesis import strategies as st

from maskwright.corpus.dedup.signatures import ALGORITHM, has_signature, shingles, signatures, similarity
from maskwright.corpus.dedup.words import hash_words


def plain_shingles(text, ngram):
    words = plain_words(text)
    if 0 < len(words) < ngram:
        return [tuple(words)]
    return [tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)]


@given(TEXTS, st.integers(1, 6))
def test_shingles_are_those_of_plain_python(texts, ngram):
    hashes, offsets = shingles(hash_words(texts), ngram)
    expected = [plain_shingles(text, ngram) for text in texts]
    assert np.diff(offsets).tolist() == list(map(len, expected))
    flat = [shingle for text in expected for shingle in text]
    named = dict(zip(flat, hashes.tolist(), strict=True))
    assert [named[shingle] for shingle in flat] == hashes.tolist()
    assert len(set(named.values())) == len(named)


@given(TEXTS)
def test_a_signature_does_not_depend_on_its_company(texts):
    together = signatures(texts, 32)
    assert together.shape == (len(texts), 32)
    for text, row in zip(texts, together, strict=True):
        assert np.array_equal(signatures([text], 32)[0], row)


def test_texts_without_words_have_no_signature():
    rows = signatures(["", "... !", "word", "字"], 16)
    assert has_signature(rows).tolist() == [False, False, True, True]


def test_case_and_punctuation_make_no_difference():
    first, second = signatures(["One, two three (four) five six.", "one two THREE four five... six"])
    assert np.array_equal(first, second)


def test_the_algorithm_is_the_one_that_is_named():
    from rensa import RMinHash

    assert ALGORITHM.endswith(f"-{RMinHash.ALGORITHM_VERSION}")


@pytest.mark.parametrize("size", [60, 2000])
@pytest.mark.parametrize("shared", [0.2, 0.5, 0.8])
def test_similarity_estimates_jaccard(size, shared):
    # Two sets of `size` single words each, of which the share `shared` of the union is common.
    common = round(2 * size * shared / (1 + shared))
    pairs = 300
    left, right = [], []
    for pair in range(pairs):
        words = [f"w{pair}x{number}" for number in range(2 * size - common)]
        left.append(" ".join(words[:size]))
        right.append(" ".join(words[size - common :]))
    exact = common / (2 * size - common)
    found = similarity(signatures(left, 128, 1), signatures(right, 128, 1))
    error = np.sqrt(exact * (1 - exact) / 128)
    assert abs(found.mean() - exact) < 4 * error / np.sqrt(pairs)
    assert found.std() < 1.3 * error


def test_similarity_of_one_row_with_many():
    rows = np.array([[1, 2, 3, 4], [1, 2, 0, 0], [9, 9, 9, 9]], np.uint32)
    assert similarity(rows[:1], rows).tolist() == [1, 0.5, 0]
