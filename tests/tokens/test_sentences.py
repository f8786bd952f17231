"""Sentences in characters and in tokens."""

import builtins
import itertools
import json
import random
import sys

import numpy as np
import pytest
import sentencex
import vocabulary_makers as makers
from hypothesis import given, settings
from hypothesis import strategies as st

from maskwright.core.errors import DataError, MissingDependencyError
from maskwright.tokens import sentences
from maskwright.tokens.sentences import sentence_ends, split_sentences
from maskwright.tokens.tokenizer import Tokenizer

PARTS = st.sampled_from(
    [
        "Dr. ",
        "A man. ",
        "你好。",
        "“是吗？”",
        "\n",
        "\n\n",
        " ",
        "…",
        "e.g. ",
        "word ",
        "(a. b.) ",
        "é\u0301",
        "👩‍👧",
    ]
)
ANY_TEXT = st.text() | st.lists(PARTS, max_size=60).map("".join)
ENGLISH = (
    'Dr. Smith went to the U.S. yesterday. "Really?" she asked. Yes!\nIt cost $3.50.\n\nA heading\n\nThe end'
)
CHINESE = "今天天气很好。我们去公园吧！“你好吗？”他问。数字3.14是圆周率；分号。完"


def pieces(text, language=None):
    return [text[start:end] for start, end in split_sentences(text, language)]


def test_english():
    assert pieces(ENGLISH, "en") == [
        "Dr. Smith went to the U.S. yesterday.",
        ' "Really?" she asked.',
        " Yes!",
        "\nIt cost $3.50.",
        "\n\nA heading",
        "\n\nThe end",
    ]


@pytest.mark.parametrize("language", ["zh", "zh-Hans", "zh_TW", None, "", "nonsense"])
def test_chinese(language):
    assert pieces(CHINESE, language) == [
        *("今天天气很好。", "我们去公园吧！", "“你好吗？”", "他问。", "数字3.14是圆周率；分号。", "完"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"), [("", []), (" \n\n ", [" \n\n "]), ("a", ["a"]), (". A", [".", " A"])]
)
def test_hardly_any_text(text, expected):
    assert pieces(text) == expected


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT, language=st.sampled_from([None, "en", "zh", "ja", "ar", "hi", "de"]))
def test_nothing_is_lost(text, language):
    spans = split_sentences(text, language)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)
    assert not text.strip() or all(text[start:end].strip() for start, end in spans)


def test_long_paragraphs_are_cut_where_short_ones_are():
    chance = random.Random(4)
    parts = [chance.choice(["你好。", "今天天气很好。", "我们去公园吧！"]) for _ in range(3000)]
    assert pieces("".join(parts), "zh") == parts
    words = [f"{'word ' * chance.randrange(1, 500)}end." for _ in range(40)]
    text = " ".join(word[0].upper() + word[1:] for word in words)
    assert [piece.strip() for piece in pieces(text, "en")] == [word[0].upper() + word[1:] for word in words]


def test_the_splitter_sees_little_at_once(monkeypatch):
    """Its cost grows with the square of what it is given."""
    seen = []
    honest = sentencex.get_sentence_boundaries

    def watch(language, text):
        seen.append(len(text))
        return honest(language, text)

    monkeypatch.setattr(sentencex, "get_sentence_boundaries", watch)
    assert len(split_sentences("你好。" * 20_000)) == 20_000
    assert max(seen) <= 1024
    assert sum(seen) < 1.1 * 60_000
    seen.clear()
    assert len(split_sentences("word " * 20_000)) == 1
    assert sum(seen) < 1.1 * 100_000


def test_a_missing_splitter_is_named(monkeypatch):
    honest = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "sentencex":
            raise ImportError(name)
        return honest(name, *rest, **named)

    monkeypatch.setitem(sys.modules, "sentencex", None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        MissingDependencyError, match="sentencex is not installed, and it is needed to split text"
    ):
        split_sentences("A. B.")


@pytest.fixture(scope="module", params=makers.KINDS)
def tokenizer(request, tmp_path_factory):
    return Tokenizer.load(makers.write_kind(tmp_path_factory.mktemp("kind"), request.param))


@settings(max_examples=150, deadline=None)
@given(text=ANY_TEXT)
def test_ends_among_tokens(tokenizer, text):
    ids, spans = tokenizer.encode(text), split_sentences(text)
    ends = sentence_ends(tokenizer, ids, text, spans)
    assert ends.dtype == np.int64
    # The definition, one token after the other.
    starts = tokenizer.token_starts(text).tolist()
    expected = [sum(start < end for start in starts) for _, end in spans[:-1]] + [len(ids)] * (len(ids) > 0)
    assert ends.tolist() == sorted({end for end in expected if end})


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, "naïve café. 👩‍👧 Ça va? 𝔘𝔫. Ende", ""])
def test_sentences_of_byte_level_tokens_decode_to_themselves(text):
    tokenizer = makers.byte_level()
    ids, spans = tokenizer.encode(text), split_sentences(text)
    ends = [0, *sentence_ends(tokenizer, ids, text, spans)]
    shown = [tokenizer.decode(ids[start:end]) for start, end in itertools.pairwise(ends)]
    assert shown == [text[start:end] for start, end in spans]


def test_a_token_over_a_border_belongs_to_the_sentence_where_it_begins():
    tokenizer = makers.byte_level()
    (number,) = tokenizer.encode(" the").tolist()
    assert sentence_ends(tokenizer, np.array([number]), " the", [(0, 2), (2, 4)]).tolist() == [1]
    ids = tokenizer.encode("x the the")
    assert sentence_ends(tokenizer, ids, "x the the", [(0, 3), (3, 7), (7, 9)]).tolist() == [2, 3]


def test_ids_of_another_text(tmp_path):
    tokenizer = Tokenizer.load(makers.write_bert(tmp_path, do_lower_case=True))
    ids = tokenizer.encode("the ferry")
    with pytest.raises(
        DataError, match=r"'the': has 1 tokens, 2 were given; encode it with the same tokenizer"
    ):
        sentence_ends(tokenizer, ids, "the", [(0, 3)])


def test_a_byte_level_vocabulary_that_changes_the_text(tmp_path):
    makers.byte_level().save(tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    definition["normalizer"] = {"type": "NFC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    text = "e\u0301 one. Two e\u0301."
    ids = tokenizer.encode(text)
    first, last = sentence_ends(tokenizer, ids, text, split_sentences(text)).tolist()
    assert (tokenizer.decode(ids[:first]), last) == ("é one.", len(ids))


def test_spelling(tmp_path):
    tokenizer = makers.byte_level()
    lengths, is_single_byte = tokenizer.spelling
    for text in (ENGLISH, CHINESE, "\0\x7f\u00a0 é"):
        ids = tokenizer.encode(text)
        assert lengths[ids].sum() == len(text.encode())
    assert not lengths[list(tokenizer.special_ids)].any()
    assert is_single_byte[tokenizer.encode("中")].all()
    assert not is_single_byte[tokenizer.encode("A.\n the")].any()
    assert np.count_nonzero(is_single_byte) == 128
    assert sentences.Span == tuple[int, int]
    assert Tokenizer.load(makers.write_unigram(tmp_path)).spelling.lengths is None
