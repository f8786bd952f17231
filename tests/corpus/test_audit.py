from __future__ import annotations

import json

from corpus_helpers import document
from hypothesis import given
from hypothesis import strategies as st

from maskwright.corpus import Audit, Document, Drop, clean_documents
from maskwright.corpus.dedup.exact import ExactDedup
from maskwright.corpus.length import length_step
from maskwright.corpus.normalise import normalise_step

KEYS = {
    "documents_read", "documents_kept", "bytes_read", "bytes_kept", "drops", "drop_samples", "repairs",
    "bad_lines", "sources", "languages", "length_histogram", "longest_document_characters",
}  # fmt: skip


def test_an_empty_account():
    values = Audit().as_dict()
    assert set(values) == KEYS
    assert values["documents_read"] == 0
    assert values["length_histogram"] == {"edges": [], "counts": []}


@given(st.lists(st.tuples(st.text(st.characters(), max_size=40), st.sampled_from("xyz"))))
def test_every_document_is_accounted_for(rows):
    audit = Audit()
    documents = [Document(text, str(n), source) for n, (text, source) in enumerate(rows)]
    steps = [normalise_step(), length_step(3, 20), ExactDedup()]
    kept = list(clean_documents(documents, steps, audit))
    for one in kept:
        audit.count_kept(one)
    values = json.loads(json.dumps(audit.as_dict(), ensure_ascii=False).encode())
    assert values["documents_read"] == len(rows)
    assert values["documents_kept"] == len(kept) == values["documents_read"] - sum(values["drops"].values())
    assert values["bytes_kept"] == sum(len(one.text.encode()) for one in kept)
    assert sum(values["length_histogram"]["counts"]) == len(kept)
    assert sum(source["documents"] for source in values["sources"].values()) == len(kept)
    assert sum(source["bytes_read"] for source in values["sources"].values()) == values["bytes_read"]
    assert values["longest_document_characters"] == max((len(one.text) for one in kept), default=0)
    assert set(values["drop_samples"]) == set(values["drops"])


def test_lengths_fall_into_powers_of_two():
    audit = Audit()
    for length in (1, 4, 7, 8):
        audit.count_kept(document("x" * length))
    assert audit.as_dict()["length_histogram"] == {"edges": [1, 2, 4, 8, 16], "counts": [1, 0, 2, 1]}


def test_samples_are_few_short_and_storable():
    audit = Audit()
    for number in range(9):
        audit.count_drop(document("\ud800 word\n" * 100, f"d{number}"), Drop("bad", "detail"))
    samples = audit.as_dict()["drop_samples"]["bad"]
    assert audit.drops["bad"] == 9
    assert len(samples) == 5
    assert samples[0].startswith("d0: detail: ? word ? word")
    assert all(len(sample) < 150 and sample.encode() for sample in samples)


def test_records_that_never_became_documents_count_as_read():
    audit = Audit()
    audit.count_unread("s", "f.jsonl:3", Drop("malformed_json", "nested too deeply"), b"[[[\xff")
    values = audit.as_dict()
    assert values["documents_read"] == 1
    assert values["bytes_read"] == 4
    assert values["drops"] == {"malformed_json": 1}
    assert values["drop_samples"]["malformed_json"] == ["f.jsonl:3: nested too deeply: [[[\ufffd"]
    assert values["sources"]["s"] == {
        "documents": 0,
        "bytes": 0,
        "documents_read": 1,
        "bytes_read": 4,
        "drops": {"malformed_json": 1},
    }


def test_languages_are_counted_with_their_bytes():
    audit = Audit()
    for text, language in (("äh", "de"), ("oh", "en"), ("öh", "de")):
        audit.count_kept(Document(text, "d", "s", {"language": language}))
    audit.count_kept(document("no language"))
    assert audit.as_dict()["languages"] == {
        "de": {"documents": 2, "bytes": 6},
        "en": {"documents": 1, "bytes": 2},
    }


def test_a_length_that_is_known_is_not_counted_again():
    audit = Audit()
    audit.count_kept(document("text"), 4)
    assert audit.bytes_kept == 4


REASONS = st.sampled_from(["empty", "too_short", "exact_duplicate"])
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["read", "kept", "drop", "unread", "repair", "bad"]),
        st.text(st.characters(), max_size=20),
        st.sampled_from(["x", "y"]),
        REASONS,
        st.sampled_from(["", "en", "zh"]),
    ),
    max_size=40,
)


def account(events):
    audit = Audit()
    for kind, text, source, reason, language in events:
        one = Document(text, f"{source}:{text[:3]}", source, {"language": language})
        if kind == "read":
            audit.count_read(one)
        elif kind == "kept":
            audit.count_kept(one)
        elif kind == "drop":
            audit.count_drop(one, Drop(reason, "why"))
        elif kind == "unread":
            audit.count_unread(source, "f:1", Drop(reason), text.encode(errors="replace"))
        elif kind == "repair":
            audit.count_repair(reason)
        else:
            audit.bad_lines[f"{source}:f"] += 1
    return audit


@given(st.lists(EVENTS, max_size=4))
def test_accounts_of_parts_add_up_to_the_account_of_the_whole(parts):
    total = Audit()
    for events in parts:
        # What travels between processes is JSON.
        state = json.loads(json.dumps(account(events).state(), ensure_ascii=False).encode())
        total.merge(Audit.from_state(state))
    whole = account([event for events in parts for event in events])
    assert total.as_dict() == whole.as_dict()
    assert total.state() == whole.state()


def test_a_state_is_independent_of_what_comes_later():
    audit = account([("drop", "text", "x", "empty", "")])
    copy = Audit.from_state(audit.state())
    before = copy.as_dict()
    audit.count_drop(document("more"), Drop("empty"))
    assert copy.as_dict() == before
