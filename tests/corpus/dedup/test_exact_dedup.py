from __future__ import annotations

import hashlib

import numpy as np
from dedup_helpers import document, places_of, split_rows
from hypothesis import given
from hypothesis import strategies as st

from maskwright.corpus.dedup.buckets import bucket_ranges
from maskwright.corpus.dedup.digest_set import DigestSet
from maskwright.corpus.dedup.exact import (
    ExactDedup,
    digest_array,
    exact_duplicates,
    text_digest,
    write_digests,
)
from maskwright.corpus.dedup.tables import DROPS, read_table, save_array
from maskwright.corpus.document import Document, Drop


@given(st.lists(st.text(st.characters(), max_size=3)))
def test_keeps_the_first_of_each_text(texts):
    step = ExactDedup()
    results = [step(document(text, str(number))) for number, text in enumerate(texts)]
    kept = [result.text for result in results if isinstance(result, Document)]
    assert kept == list(dict.fromkeys(texts))
    for text, result in zip(texts, results, strict=True):
        if isinstance(result, Drop):
            assert result == Drop("exact_duplicate", str(texts.index(text)))


def test_remembers_a_bounded_number_of_names():
    step = ExactDedup(remembered_ids=1)
    for text in ("a", "b"):
        step(document(text, f"id-{text}"))
    assert step(document("a")) == Drop("exact_duplicate", "id-a")
    assert step(document("b")) == Drop("exact_duplicate", "an earlier document")


def test_digest_is_blake2b_of_utf8():
    assert text_digest("é") == hashlib.blake2b("é".encode(), digest_size=16).digest()
    assert len(text_digest("\ud800")) == 16


# Few different digests, so that equal ones and equal slots are common.
DIGESTS = st.lists(st.integers(0, 40).map(lambda value: (value << 70 | value % 7).to_bytes(16, "little")))


@given(DIGESTS)
def test_digest_set_answers_like_a_set(digests):
    ours, theirs = DigestSet(), set()
    for digest in digests:
        assert ours.add(digest) == (digest not in theirs)
        theirs.add(digest)
    assert len(ours) == len(theirs)


def test_digest_set_grows_and_stays_small():
    members = DigestSet()
    digests = [text_digest(str(number)) for number in range(20_000)]
    assert all(members.add(digest) for digest in digests)
    assert not any(members.add(digest) for digest in digests)
    assert len(members) == 20_000
    assert members.num_bytes <= 48 * len(members)


def test_digest_of_zeros_is_a_member_like_any_other():
    members = DigestSet()
    assert members.add(bytes(16))
    assert not members.add(bytes(16))


def copies_by_dict(parts):
    """Every later copy and the first of its text, with the number of documents of that text."""
    texts = [text for part in parts for text in part]
    firsts, drops = {}, []
    for place, text in zip(places_of(parts), texts, strict=True):
        if text in firsts:
            drops.append((*place, *firsts[text], texts.count(text)))
        firsts.setdefault(text, place)
    return drops


def copies_by_files(folder, parts, ranges):
    files = []
    for number, texts in enumerate(parts):
        files.append((number, folder / f"part-{number}"))
        write_digests(files[-1][1], digest_array([text_digest(text) for text in texts]))
    tables = []
    for number, buckets in enumerate(ranges):
        tables.append(folder / f"drops-{number}.npy")
        save_array(tables[-1], exact_duplicates(files, buckets))
    return read_table(tables, DROPS).tolist()


@given(
    st.lists(st.text("ab", max_size=2), max_size=25),
    st.sets(st.integers(0, 25)),
    st.sampled_from([1, 4, 256]),
)
def test_copies_across_parts_are_those_of_a_dict(tmp_path_factory, texts, cuts, num_tasks):
    parts = split_rows(texts, cuts)
    ranges = bucket_ranges(num_tasks, 1, 1)
    assert len(ranges) == num_tasks
    assert copies_by_files(tmp_path_factory.mktemp("exact"), parts, ranges) == copies_by_dict(parts)


def test_both_words_of_a_digest_count(tmp_path):
    digests = np.array([[7, 1], [7, 2], [7, 1], [8, 1]], np.uint64)
    write_digests(tmp_path / "part", digests)
    assert exact_duplicates([(4, tmp_path / "part")], range(256)).tolist() == [(4, 2, 4, 0, 2)]


def test_digests_as_an_array():
    array = digest_array([text_digest("a"), text_digest("b")])
    assert array.shape == (2, 2)
    assert array.astype("<u8").tobytes() == text_digest("a") + text_digest("b")
    assert digest_array([]).shape == (0, 2)
