"""The tokenizer: ids, round trips, the fast path against the reference, and what is refused."""

import json
import logging
import random

import gigatoken
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_world
from maskwright.core.errors import DataError, TokenizerError
from maskwright.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = [tiny_world.text(random.Random(number), "harbour", 5) for number in range(60)]
# Every plane of Unicode, and characters that tokenizers stumble over.
ANY_TEXT = st.text() | st.text(
    st.sampled_from(" \t\n'’ast<>/mk1\u0301\u200d\u00a0中👩🏽\U000e0061\U0010ffff")
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 350)


class LyingEncoder:
    """Stands for a fast encoder that is wrong about one text."""

    def __init__(self, honest, about):
        self.honest, self.about = honest, about

    def encode(self, text):
        ids = self.honest.encode(text)
        return ids + 1 if self.about in text else ids

    def encode_batch(self, texts):
        raise AssertionError("a liar must not be asked")


@pytest.fixture
def lie(monkeypatch):
    """Make the fast encoder wrong about texts that hold some characters."""

    def install(about):
        honest = gigatoken.Tokenizer.from_json
        monkeypatch.setattr(
            gigatoken.Tokenizer, "from_json", lambda definition: LyingEncoder(honest(definition), about)
        )

    return install


def test_ids_of_the_special_tokens(tokenizer):
    assert (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, 3)
    assert tokenizer.mask_id == tokenizer.vocab_size - 1 == 349
    assert tokenizer.special_ids == (0, 1, 2, 3, 349)


def test_training_twice_gives_the_same_vocabulary(tokenizer):
    assert Tokenizer.train(iter(TEXTS), 350).definition == tokenizer.definition
    assert Tokenizer.train(TEXTS, 350).fingerprint == tokenizer.fingerprint
    assert Tokenizer.train(TEXTS, 349).fingerprint != tokenizer.fingerprint


def test_a_small_corpus_gives_a_smaller_vocabulary_with_the_mask_last():
    small = Tokenizer.train(["abc"], 1000)
    assert small.vocab_size < 1000
    assert small.mask_id == small.vocab_size - 1


def test_a_vocabulary_too_small_for_the_bytes():
    with pytest.raises(TokenizerError, match="vocab_size is 260, expected at least 261: bytes and specials"):
        Tokenizer.train(TEXTS, 260)
    assert Tokenizer.train(TEXTS, 261).vocab_size == 261


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
def test_decoding_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=6))
def test_the_fast_path_equals_the_reference(tokenizer, texts):
    ids, counts = tokenizer.encode_batch(texts)
    expected = [tokenizer.reference.encode(text, add_special_tokens=False).ids for text in texts]
    assert ids.tolist() == [number for row in expected for number in row]
    assert counts.tolist() == [len(row) for row in expected]
    assert (ids.dtype, counts.dtype) == (np.uint32, np.int64)
    assert tokenizer.check_fast_path(texts)


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_special_tokens_in_a_text_are_text(tokenizer, special):
    ids = tokenizer.encode(f"a {special} b{special}")
    assert not set(ids.tolist()) & set(tokenizer.special_ids)
    assert tokenizer.decode(ids) == f"a {special} b{special}"


def test_half_of_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"'x\\ud83d': holds half of a surrogate pair, which is no text"):
        tokenizer.encode_batch(["fine", "x\ud83d"])


def test_another_type_error_is_not_hidden(tokenizer, monkeypatch):
    def fail(texts):
        raise TypeError("something else")

    monkeypatch.setattr(tokenizer, "_encode", fail)
    with pytest.raises(TypeError, match="something else"):
        tokenizer.encode_batch(["fine"])


def test_a_fast_encoder_that_lies_is_replaced_with_a_warning(lie, caplog):
    lie("שלום")
    tokenizer = Tokenizer.train(TEXTS, 350)
    honest = Tokenizer.train(TEXTS, 350).reference
    with caplog.at_level(logging.WARNING, "maskwright"):
        ids, counts = tokenizer.encode_batch(["a b", "", "שלום"])
    rows = [honest.encode(text, add_special_tokens=False).ids for text in ("a b", "שלום")]
    assert ids.tolist() == rows[0] + rows[1]
    assert counts.tolist()[1] == 0
    assert (ids.dtype, counts.dtype) == (np.uint32, np.int64)
    (line,) = caplog.messages
    assert "fast and reference encoder differ on 'שלום" in line
    assert "the reference takes over" in line


def test_a_lie_about_the_corpus_is_found_by_the_check(lie, caplog):
    lie("zebra")
    tokenizer = Tokenizer.train(TEXTS, 350)
    assert tokenizer.check_fast_path(["no animals"])
    with caplog.at_level(logging.WARNING, "maskwright"):
        assert not tokenizer.check_fast_path(["a zebra"])
    assert "differ on 'a zebra'" in caplog.text
    assert tokenizer.decode(tokenizer.encode("a zebra")) == "a zebra"


def test_a_vocabulary_that_the_fast_encoder_refuses(monkeypatch, caplog):
    def refuse(definition):
        raise ValueError("no such model")

    monkeypatch.setattr(gigatoken.Tokenizer, "from_json", refuse)
    tokenizer = Tokenizer.train(TEXTS, 350)
    with caplog.at_level(logging.WARNING, "maskwright"):
        assert tokenizer.decode(tokenizer.encode("The ferry")) == "The ferry"
    assert "the fast encoder cannot be used (no such model); the reference takes over" in caplog.text


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        again = Tokenizer.load(place)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode(TEXTS[0]).tolist() == tokenizer.encode(TEXTS[0]).tolist()


@pytest.mark.parity
def test_transformers_reads_the_same_vocabulary(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path, max_length=77)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS[:5], "", "  naïve\n\n 中文 👩‍👩‍👧 it's", "x" * 50]:
        expected = [tokenizer.bos_id, *tokenizer.encode(text).tolist(), tokenizer.eos_id]
        assert theirs(text)["input_ids"] == expected
    pair = theirs("a b", "c")["input_ids"]
    assert pair == [0, *tokenizer.encode("a b"), 2, 2, *tokenizer.encode("c"), 2]
    assert theirs.model_max_length == 77
    assert len(theirs) == tokenizer.vocab_size
    names = ("bos_token_id", "pad_token_id", "eos_token_id", "unk_token_id", "mask_token_id")
    assert [getattr(theirs, name) for name in names] == [0, 1, 2, 3, 349]
    assert (theirs.cls_token_id, theirs.sep_token_id) == (0, 2)
    # The mask takes the white space before it, as in the published vocabulary.
    assert theirs("a \n<mask> b")["input_ids"] == [0, *tokenizer.encode("a"), 349, *tokenizer.encode(" b"), 2]


def test_nothing_to_load(tmp_path):
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json; give a folder that holds a tokenizer"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[]", b'{"model": 3}'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: is not a tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_a_vocabulary_without_the_special_tokens(tokenizer):
    definition = json.loads(tokenizer.reference.to_str())
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["content"] != "<mask>"]
    with pytest.raises(TokenizerError, match="here: has no <mask>; a RoBERTa vocabulary has <s> <pad>"):
        Tokenizer(json.dumps(definition), "here")


def test_a_model_of_another_vocabulary(tokenizer):
    tokenizer.require_size(350, "here")
    with pytest.raises(TokenizerError, match="here: the model has 500 vocabulary entries, the tokenizer 350"):
        tokenizer.require_size(500, "here")


def test_one_token_as_people_read_it(tokenizer):
    (number,) = tokenizer.encode(" the").tolist()
    assert tokenizer.token_text(number) == " the"
    assert tokenizer.token_text(tokenizer.mask_id) == "<mask>"
