"""The fast encoder against the reference over all of Unicode, and its bounds in memory and threads."""

import json
import multiprocessing
import os
import sys
import unicodedata

import gigatoken
import numpy as np
import pytest
import vocabulary_makers as makers
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.tokens import fast
from maskwright.tokens.tokenizer import Tokenizer

PLANES = [
    st.characters(min_codepoint=p << 16, max_codepoint=(p << 16) + 0xFFFF, categories=None) for p in range(17)
]
ANY_PLANE = st.one_of(*PLANES).filter(lambda character: not 0xD800 <= ord(character) < 0xE000)
MARKS = st.characters(categories=["Mn", "Mc", "Me", "Cf", "Zs", "Lm", "Sk", "No", "Nl"])
# What splits a text into words, so that every rule of the pattern meets every kind of character.
JOINTS = st.sampled_from(
    ["'s", "'LL", "'", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "a", "B", "1", "."]
)
LITERALS = st.sampled_from(["<mask>", "</s>", "<s>", "[MASK]", "[SEP]", "##", "Ġ", "▁", "Ċ", "<0x41>", "\0"])
MIXED = st.lists(st.one_of(ANY_PLANE, MARKS, JOINTS, LITERALS), max_size=30).map("".join)
# Of the 137,000 for private use the first and last of each block, as of the unassigned.
EDGES = [
    0xE000,
    0xF8FF,
    *(plane << 16 | low for plane in range(1, 17) for low in (0, 0xFFFD, 0xFFFE, 0xFFFF)),
]
ASSIGNED = [
    *(chr(n) for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) not in ("Cn", "Cs", "Co")),
    *map(chr, EDGES),
]


@pytest.fixture(scope="module", params=["trained", "published"])
def tokenizer(request):
    if request.param == "trained":
        return makers.byte_level()
    folder = makers.shared_data("roberta_vocab")
    if not folder.is_dir():
        pytest.skip("the shared data is absent")
    return Tokenizer.load(folder)


@pytest.fixture(scope="module", params=["bert", "bert-cased", "unigram"])
def other_kind(request, tmp_path_factory):
    return Tokenizer.load(makers.write_kind(tmp_path_factory.mktemp("kind"), request.param))


def assert_equal(tokenizer, texts):
    """The fast encoder is in use, and gives what the reference gives."""
    ids, counts = tokenizer.encode_batch(texts)
    assert tokenizer.check_fast_path([])
    rows = [e.ids for e in tokenizer.reference.encode_batch_fast(texts, add_special_tokens=False)]
    if counts.tolist() == [len(row) for row in rows]:
        expected = np.fromiter((number for row in rows for number in row), np.uint32)
        if np.array_equal(ids, expected):
            return
    wrong = [text for text, row in zip(texts, rows, strict=True) if tokenizer.encode(text).tolist() != row]
    pytest.fail(f"encoders differ on {min(wrong, key=len)!r}")


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(MIXED, min_size=1, max_size=5))
def test_any_text(tokenizer, texts):
    assert_equal(tokenizer, texts)
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(texts=st.lists(MIXED, min_size=1, max_size=5))
def test_very_many_texts(tokenizer, texts):
    assert_equal(tokenizer, texts)


def test_every_assigned_character(tokenizer):
    for start in range(0, len(ASSIGNED), 50_000):
        points = ASSIGNED[start : start + 50_000]
        assert_equal(tokenizer, [f"a{c}b {c}{c}'s 1{c}2\n{c} .{c}" for c in points])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["blns.txt", "kuhn-utf8-test.txt", "utf8tests.bin"])
def test_awkward_files(tokenizer, name):
    path = makers.shared_data("awkward", name)
    if not path.is_file():
        pytest.skip("the shared data is absent")
    for errors in ("replace", "ignore", "backslashreplace"):
        text = path.read_bytes().decode("utf-8", errors)
        assert_equal(tokenizer, [text, *text.split("\n"), *(f"a {line} b" for line in text.split("\n"))])
    latin = path.read_bytes().decode("latin-1")
    assert_equal(tokenizer, [latin, *latin.split("\n")])


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(MIXED, min_size=1, max_size=4))
def test_other_kinds_know_no_special_ids(other_kind, texts):
    ids, counts = other_kind.encode_batch(texts)
    assert not set(ids.tolist()) & (set(other_kind.special_ids) - {other_kind.unk_id})
    assert counts.tolist() == [len(other_kind.encode(text)) for text in texts]


def test_nothing_is_remembered_for_ever(monkeypatch):
    made = []
    honest = gigatoken.Tokenizer.from_json
    monkeypatch.setattr(fast, "MAX_REMEMBERED_IDS", 1000)
    monkeypatch.setattr(gigatoken.Tokenizer, "from_json", lambda text: made.append(text) or honest(text))
    tokenizer = makers.byte_level()
    expected = tokenizer.encode(makers.TEXTS[0]).tolist()
    assert len(made) == 1
    for _ in range(1500 // len(expected) + 1):
        assert tokenizer.encode(makers.TEXTS[0]).tolist() == expected
    assert len(made) == 2
    assert json.loads(made[0])["added_tokens"] == []


class Watched:
    """Stands for the fast encoder and notes whether it may use several threads."""

    def __init__(self, honest, seen):
        self.honest, self.seen = honest, seen

    def encode(self, text):
        return self.honest.encode(text)

    def encode_batch(self, texts, *, parallel):
        self.seen.append(parallel)
        return self.honest.encode_batch(texts, parallel=parallel)


def test_one_thread_on_request(monkeypatch):
    seen = []
    honest = gigatoken.Tokenizer.from_json
    monkeypatch.setattr(gigatoken.Tokenizer, "from_json", lambda text: Watched(honest(text), seen))
    monkeypatch.setattr(fast, "_one_thread", False)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    tokenizer = makers.byte_level()
    before = tokenizer.encode("a b").tolist()
    fast.use_one_thread()
    assert tokenizer.encode("a b").tolist() == before
    assert seen == [True, False]
    assert (os.environ["TOKENIZERS_PARALLELISM"], os.environ["RAYON_NUM_THREADS"]) == ("false", "1")
    del os.environ["RAYON_NUM_THREADS"]  # set by the code, so the fixture does not know it


def test_workers_use_one_thread_unasked(monkeypatch):
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    assert not fast.is_single_threaded()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(fast.is_single_threaded)
