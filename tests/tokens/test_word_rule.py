"""Words told from ids: the pieces of GPT-2's splitter, found without the text."""

import json
import random
import unicodedata

import numpy as np
import pytest
import vocabulary_makers as makers
from hypothesis import given, settings
from hypothesis import strategies as st
from word_texts import LETTERS, TEXTS, expected_begins, words_of

from maskwright.core.errors import TokenizerError
from maskwright.tokens.character_classes import CharacterClass, character_classes
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.tokens.word_rule import CONTEXT, word_rule

ANY_TEXT = st.lists(st.sampled_from(LETTERS), max_size=40).map("".join) | st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cn"))
)


@pytest.fixture(scope="module")
def tiny():
    """Entries of one and two bytes, so that characters and short forms are spread over tokens."""
    return Tokenizer.train(TEXTS * 3, 330)


@pytest.fixture(scope="module")
def roberta():
    if not makers.shared_data("roberta_vocab").exists():
        pytest.skip("needs the vocabulary of RoBERTa")
    return Tokenizer.load(makers.shared_data("roberta_vocab"))


@pytest.fixture(scope="module")
def wordpiece():
    return Tokenizer.train([*TEXTS, "unbelievable believable un able believe"] * 4, 500, "wordpiece")


def begins_of(tokenizer, text):
    return word_rule(tokenizer).begins(tokenizer.encode(text).astype(np.int64)).tolist()


@pytest.mark.parametrize("text", TEXTS)
def test_as_the_splitter(tiny, text):
    assert begins_of(tiny, text) == expected_begins(tiny, text)


@pytest.mark.shared
@pytest.mark.parametrize("text", TEXTS)
def test_as_the_splitter_of_roberta(roberta, text):
    assert begins_of(roberta, text) == expected_begins(roberta, text)


@settings(max_examples=400, deadline=None)
@given(text=ANY_TEXT)
def test_any_text_as_the_splitter(tiny, text):
    assert begins_of(tiny, text) == expected_begins(tiny, text)


@pytest.mark.shared
@settings(max_examples=400, deadline=None)
@given(text=ANY_TEXT)
def test_any_text_as_the_splitter_of_roberta(roberta, text):
    assert begins_of(roberta, text) == expected_begins(roberta, text)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["enwiki-valid", "zhwiki-valid", "books-train"])
def test_real_text_as_the_splitter_of_roberta(roberta, name):
    import io

    import zstandard

    path = makers.shared_data("corpora", f"{name}.jsonl.zst")
    if not path.exists():
        pytest.skip("needs the corpora")
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        lines = io.TextIOWrapper(stream, "utf-8")
        texts = [json.loads(next(lines))["text"][:20_000] for _ in range(12)]
    for text in texts:
        assert begins_of(roberta, text) == expected_begins(roberta, text)


@pytest.mark.shared
def test_words_of_roberta(roberta):
    assert words_of(roberta, "Unbelievably, it's 1,234 e-mails: I'll") == [
        *("Unbelievably", ",", " it", "'s", " 1", ",", "234", " e", "-", "mails", ":", " I", "'ll"),
    ]
    assert words_of(roberta, "他 说中文，OK") == ["他", " 说", "中", "文", "，", "OK"]


def test_every_character_has_the_class_of_the_splitter(tiny):
    """Each one behind a letter, a digit and a sign: which of the three does it go on with?"""
    splitter = tiny.reference.pre_tokenizer
    classes = character_classes()
    plain = {CharacterClass.HAN: 1, CharacterClass.KANA: 1, CharacterClass.SPACE: 5}
    chance = random.Random(3)
    codes = [*range(0x3400), *(chance.randrange(0x3400, 0x32400) for _ in range(3000)), 0xE0100, 0x10FFFD]
    for code in codes:
        if unicodedata.category(chr(code)) in ("Cn", "Cs") or code == 0x3007:
            continue  # unknown to this Python, or the Chinese zero, which is a digit there
        goes_on = [len(splitter.pre_tokenize_str(before + chr(code))) == 1 for before in "a1!"]
        expected = dict(zip(goes_on, (1, 2, 0), strict=True)).get(True, 5)
        found = int(classes[min(code, len(classes) - 1)])
        assert plain.get(CharacterClass(found), found) == expected, hex(code)


def test_wordpiece_goes_on_with_its_mark(wordpiece):
    text = "Unbelievable believes, 中文 don't"
    pieces = [wordpiece.token_text(number) for number in wordpiece.encode(text).tolist()]
    assert any(piece.startswith("##") for piece in pieces)
    assert begins_of(wordpiece, text) == [not piece.startswith("##") for piece in pieces]


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_any_text_as_the_splitter_of_wordpiece(wordpiece, text):
    reference = wordpiece.reference
    words = reference.pre_tokenizer.pre_tokenize_str(reference.normalizer.normalize_str(text))
    assert sum(begins_of(wordpiece, text)) == len(words)


def test_unigram_goes_on_without_its_mark(tmp_path):
    tokenizer = Tokenizer.load(makers.write_unigram(tmp_path))
    assert words_of(tokenizer, "the ferrys ab, 中文ab") == ["the", "ferrys", "ab", "<unk>", "中", "文", "ab"]


def test_special_and_added_tokens_are_words(tiny):
    ids = tiny.encode("abab")
    row = np.array([*ids, tiny.eos_id, *ids, tiny.mask_id, tiny.unk_id, *ids], np.int64)
    inside = [True, *[False] * (len(ids) - 1)]
    assert word_rule(tiny).begins(row).tolist() == [*inside, True, *inside, True, True, *inside]


def test_no_tokens(tiny, wordpiece):
    for tokenizer in (tiny, wordpiece):
        assert word_rule(tokenizer).begins(np.empty(0, np.int64)).tolist() == []


@settings(max_examples=100, deadline=None)
@given(text=ANY_TEXT, data=st.data())
def test_no_more_than_the_context_matters(tiny, text, data):
    ids = np.concatenate([tiny.encode(text).astype(np.int64)] * 2)
    start = data.draw(st.integers(0, len(ids)))
    stop = data.draw(st.integers(start, len(ids)))
    low, high = max(0, start - CONTEXT), min(len(ids), stop + CONTEXT)
    part = word_rule(tiny).begins(ids[low:high])[start - low : stop - low]
    # The first token of all is the begin of a document, that of a part is not.
    assert part.tolist() == word_rule(tiny).begins(ids)[start:stop].tolist()


def test_any_ids_are_taken(tiny):
    """Also ids that spell no text: halves of characters in a row."""
    chance = np.random.default_rng(1)
    for _ in range(300):
        ids = chance.integers(0, tiny.vocab_size, 12)
        assert word_rule(tiny).begins(ids)[0]


def test_ends_of_words_are_not_supported(tiny):
    definition = json.loads(json.dumps(tiny.definition))
    definition["model"]["end_of_word_suffix"] = "</w>"
    tokenizer = Tokenizer(json.dumps(definition), "here")
    with pytest.raises(TokenizerError, match="here: marks the ends of words with '</w>', which whole words"):
        word_rule(tokenizer)


def test_word_level_tokens_are_words(tiny):
    vocab = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"])}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    definition = {**tiny.definition, "model": model, "added_tokens": [], "pre_tokenizer": None}
    tokenizer = Tokenizer(json.dumps({**definition, "decoder": None, "post_processor": None}))
    assert word_rule(tokenizer).begins(np.array([5, 5, 3])).tolist() == [True, True, True]
