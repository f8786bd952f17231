from __future__ import annotations

import hashlib

from corpus_helpers import document
from hypothesis import given
from hypothesis import strategies as st

from maskwright.corpus.digest_set import DigestSet
from maskwright.corpus.document import Document, Drop
from maskwright.corpus.exact_dedup import ExactDedup, text_digest


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
