"""Further entries for a vocabulary: old ids stay, words become single tokens, each knows its pieces."""

import json
import random
from collections import Counter
from dataclasses import astuple
from functools import cache
from itertools import pairwise

import pytest
import vocabulary_makers as makers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskwright.core.errors import TokenizerError
from maskwright.tokens.extend import (
    EXTENSION_FILE,
    Extension,
    NewEntry,
    SampleCounts,
    extend_tokenizer,
    read_extension,
    save_extension,
)
from maskwright.tokens.tokenizer import Tokenizer

DOMAIN = ["angioplasty", "Bilirubin", "hepatocyte", "tachycardia", "中性粒细胞", "naïveté"]
# As they stand in a text; Chinese is learned as it stands between other signs.
WRITTEN = [word if "中" in word else f" {word}" for word in DOMAIN]
MIXED = st.lists(
    st.text(max_size=8) | st.sampled_from([*DOMAIN, " ", "the ferry", "hepatocytes", "<mask>", "\n"])
).map("".join)
ENTRY = NewEntry(id=10, token="xy", pieces=(3, 4))
COUNTS = SampleCounts(words=9, tokens_before=20, tokens_after=12)


def domain_texts(number=40):
    chance = random.Random(number)
    rows = [" ".join(chance.choice([*DOMAIN, "the", "ferry"]) for _ in range(30)) for _ in range(number)]
    return [f"{row}." for row in rows]


@cache
def byte_level(number=54):
    old = makers.byte_level()
    return old, *extend_tokenizer(old, domain_texts(), number, 5)


@cache
def wordpiece():
    texts = [*makers.TEXTS, *(f"{word[:4]} {word[4:]}" for word in DOMAIN)]
    old = Tokenizer.train(texts, 200, "wordpiece")
    return old, *extend_tokenizer(old, domain_texts(), 4, 5)


def undone(ids, extension):
    """The ids with every new one replaced by what it was made of."""
    pieces = {entry.id: entry.pieces for entry in extension.new}
    return [piece for number in ids.tolist() for piece in pieces.get(number, (number,))]


def slow_merges(old, texts, num_new, min_count):
    """The same by the book: count all pairs of all words anew for each merge."""
    split = old.reference.pre_tokenizer.pre_tokenize_str
    words = Counter(word for text in texts for word, _ in split(text))
    rows = [([token.id for token in old.reference.model.tokenize(word)], n) for word, n in words.items()]
    names = {number: token for token, number in old.reference.get_vocab().items()}
    new = []
    while len(new) < num_new:
        totals = Counter()
        for ids, count in rows:
            for pair in pairwise(ids):
                totals[pair] += count
        known = set(names.values())
        free = [pair for pair in totals if names[pair[0]] + names[pair[1]] not in known]
        best = min(free, key=lambda pair: (-totals[pair], pair), default=None)
        if best is None or totals[best] < min_count:
            break
        number = old.vocab_size + len(new)
        names[number] = names[best[0]] + names[best[1]]
        new.append((best, names[number]))
        rows = [(replaced(ids, best, number), count) for ids, count in rows]
    return new


def replaced(ids, pair, number):
    result = []
    for token in ids:
        if result and (result[-1], token) == pair:
            result[-1] = number
        else:
            result.append(token)
    return result


def test_old_ids_stay_and_new_ones_follow():
    old, new, extension = byte_level()
    before, after = old.reference.get_vocab(), new.reference.get_vocab()
    assert {token: after[token] for token in before} == before
    assert extension.base_vocab_size == old.vocab_size == 350
    assert [entry.id for entry in extension.new] == list(range(350, 404))
    assert {entry.token: entry.id for entry in extension.new} == {
        token: number for token, number in after.items() if number >= 350
    }
    assert new.vocab_size == 404
    assert (new.mask_id, new.special_ids) == (old.mask_id, old.special_ids) == (349, (0, 1, 2, 3, 349))
    merges = new.definition["model"]["merges"]
    assert merges[:-54] == old.definition["model"]["merges"]
    assert new.fingerprint != old.fingerprint


def test_the_old_vocabulary_is_left_alone():
    old = makers.byte_level()
    before = json.dumps(old.definition)
    extend_tokenizer(old, domain_texts(), 5, 5)
    assert json.dumps(old.definition) == before


def test_words_of_the_domain_become_single_tokens():
    old, new, _ = byte_level()
    for word in WRITTEN:
        assert len(old.encode(word)) > 1
        assert len(new.encode(word)) == 1, word
    assert new.check_fast_path(domain_texts())


def test_text_without_new_pairs_keeps_its_ids():
    old, new, extension = byte_level()
    entries = new.reference.get_vocab()
    merges = new.definition["model"]["merges"][-len(extension.new) :]
    pairs = {(entries[left], entries[right]) for left, right in merges}
    kept = Counter()
    for text in " ".join(makers.TEXTS).split(". "):
        ids = old.encode(text).tolist()
        is_old = pairs.isdisjoint(pairwise(ids))
        assert (new.encode(text).tolist() == ids) == is_old
        kept[is_old] += 1
    assert min(kept[True], kept[False]) > 20


@settings(max_examples=200, deadline=None)
@given(text=MIXED)
@example(text="hepatocytehepatocyte")
def test_texts_come_back_and_pieces_are_the_old_ids(text):
    old, new, extension = byte_level()
    ids = new.encode(text)
    assert new.decode(ids) == text
    assert undone(ids, extension) == old.encode(text).tolist()
    assert ids.tolist() == new.reference.encode(text, add_special_tokens=False).ids
    assert new.check_fast_path([text])


def test_every_new_entry_is_one_token_by_itself():
    _, new, extension = byte_level()
    for entry in extension.new:
        text = new.decode(entry.pieces)
        if "\ufffd" not in text:
            assert new.encode(text).tolist() == [entry.id]


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text("abcd ", max_size=30), min_size=1, max_size=6), number=st.integers(1, 12))
@example(texts=["aaaa aaa aaaaaaa"], number=3)
@example(texts=["abcab abab babab"], number=4)
def test_the_merges_are_those_of_counting_anew(texts, number):
    old = Tokenizer.train(["the ferry"], 261)
    expected = slow_merges(old, texts, number, 2)
    if not expected:
        with pytest.raises(TokenizerError, match="no new entry occurs 2 times"):
            extend_tokenizer(old, texts, number, 2)
        return
    new, extension = extend_tokenizer(old, texts, number, 2)
    assert [entry.token for entry in extension.new] == [token for _, token in expected]
    merges = new.definition["model"]["merges"][-len(expected) :]
    assert ["".join(pair) for pair in merges] == [token for _, token in expected]


def test_a_pair_that_spells_an_old_entry_stays_apart():
    old = makers.byte_level()
    definition = json.loads(json.dumps(old.definition))
    model = definition["model"]
    # "qxz" exists, made of q and xz; the text cuts "qxz" as qx and z, because that merge comes first.
    for token in ("qx", "xz", "qxz"):
        model["vocab"][token] = len(model["vocab"]) + 1
    model["merges"] += [["q", "x"], ["x", "z"], ["q", "xz"]]
    odd = Tokenizer(json.dumps(definition))
    texts = ["aqxz"] * 20
    assert [odd.token_text(number) for number in odd.encode("qxz")] == ["qx", "z"]
    new, extension = extend_tokenizer(odd, texts, 9, 5)
    assert [entry.token for entry in extension.new] == ["aqx", "aqxz"]
    assert new.encode("qxz").tolist() == odd.encode("qxz").tolist()


def test_the_order_of_the_texts_does_not_show():
    old, new, extension = byte_level()
    again, same = extend_tokenizer(old, reversed(domain_texts()), 54, 5)
    assert same == extension
    assert again.definition == new.definition


def test_tokens_of_the_sample_are_counted_before_and_after():
    old = makers.byte_level()
    texts = [text.replace("中性粒细胞", "spleen") for text in domain_texts()]
    new, extension = extend_tokenizer(old, texts, 20, 5)
    split = old.reference.pre_tokenizer.pre_tokenize_str
    assert extension.sample == SampleCounts(
        words=sum(len(split(text)) for text in texts),
        tokens_before=sum(len(old.encode(text)) for text in texts),
        tokens_after=sum(len(new.encode(text)) for text in texts),
    )
    assert extension.sample.tokens_after < extension.sample.tokens_before


def test_merges_in_the_older_form(tmp_path):
    old, new, extension = byte_level()
    definition = json.loads(json.dumps(old.definition))
    definition["model"]["merges"] = [" ".join(pair) for pair in definition["model"]["merges"]]
    found, same = extend_tokenizer(Tokenizer(json.dumps(definition)), domain_texts(), 54, 5)
    assert same == extension
    assert found.definition["model"]["merges"] == [
        " ".join(pair) for pair in new.definition["model"]["merges"]
    ]
    assert found.encode(" hepatocyte").tolist() == new.encode(" hepatocyte").tolist()


def test_fewer_entries_where_few_words_are_frequent(caplog):
    old = makers.byte_level()
    new, extension = extend_tokenizer(old, ["zqzq"] * 3, 50, 3)
    assert 0 < len(extension.new) < 50
    assert new.encode("zqzq").tolist() == [extension.new[-1].id]
    assert f"{len(extension.new)} new entries instead of 50" in caplog.text
    with pytest.raises(
        TokenizerError, match=r"no new entry occurs 7 times in the texts; lower tokenizer\.ext"
    ):
        extend_tokenizer(old, ["zqzq"] * 3, 50, 7)


def test_an_extended_vocabulary_can_be_extended():
    old, new, first = byte_level()
    newer, second = extend_tokenizer(new, ["kinesiology of the spleen. "] * 20, 10, 5)
    assert second.base_vocab_size == 404
    assert undone(newer.encode(" kinesiology"), second) == new.encode(" kinesiology").tolist()
    assert newer.encode(" hepatocyte").tolist() == new.encode(" hepatocyte").tolist()
    assert undone(new.encode(" hepatocyte"), first) == old.encode(" hepatocyte").tolist()


def test_endless_words_and_half_pairs_do_no_harm():
    old = makers.byte_level()
    texts = ["x" * 200_000, " " * 200_000, "a \ud83d b", *domain_texts()]
    _, extension = extend_tokenizer(old, texts, 30, 5)
    assert not any("x" * 65 in entry.token for entry in extension.new)


def test_wordpiece_gets_whole_words():
    old, new, extension = wordpiece()
    before, after = old.reference.get_vocab(), new.reference.get_vocab()
    assert {token: after[token] for token in before} == before
    assert new.special_ids == old.special_ids
    assert len(extension.new) == 4
    assert new.vocab_size == old.vocab_size + 4
    for entry in extension.new:
        assert old.encode(entry.token).tolist() == list(entry.pieces)
        assert new.encode(entry.token.capitalize()).tolist() == [entry.id]
    assert {entry.token for entry in extension.new} <= {"angioplasty", "bilirubin", "hepatocyte"} | {
        "tachycardia",
        "naivete",
    }
    counts = Counter(" ".join(domain_texts()).lower().replace(".", "").replace("ï", "i").split())
    frequencies = [counts[entry.token.replace("naivete", "naiveté")] for entry in extension.new]
    assert frequencies == sorted(frequencies, reverse=True)
    # A longer word now begins with the new entry.
    (number,) = new.encode("hepatocyte").tolist()
    assert new.encode("hepatocytes").tolist()[0] == number


@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.sampled_from([*DOMAIN, "the ferry", "x", "中", "[MASK]"])).map(" ".join))
def test_wordpiece_spells_the_same(text):
    old, new, _ = wordpiece()
    assert new.decode(new.encode(text)) == old.decode(old.encode(text))


def test_wordpiece_text_without_new_words_keeps_its_ids():
    old, new, _ = wordpiece()
    for text in makers.TEXTS:
        assert new.encode(text).tolist() == old.encode(text).tolist()


def test_other_kinds_are_refused(tmp_path):
    unigram = Tokenizer.load(makers.write_unigram(tmp_path))
    with pytest.raises(
        TokenizerError, match=r"is Unigram, which cannot be extended; tokenizer\.extend takes"
    ):
        extend_tokenizer(unigram, domain_texts(), 10)
    definition = json.loads(json.dumps(makers.byte_level().definition))
    definition["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    with pytest.raises(TokenizerError, match="is BPE, but not plainly byte-level, which cannot be extended"):
        extend_tokenizer(Tokenizer(json.dumps(definition)), domain_texts(), 10)


@pytest.mark.parity
@pytest.mark.parametrize("made", [byte_level, wordpiece])
def test_transformers_gives_the_same_ids(made, tmp_path):
    transformers = pytest.importorskip("transformers")
    _, new, extension = made()
    new.save(tmp_path)
    save_extension(tmp_path, extension)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert len(theirs) == new.vocab_size == again.vocab_size
    assert again.fingerprint == new.fingerprint
    assert (theirs.mask_token_id, theirs.pad_token_id) == (new.mask_id, new.pad_id)
    for text in [*domain_texts(5), *makers.TEXTS[:5], "Hepatocytes hepatocyte 中性粒细胞, naïve"]:
        assert theirs.encode(text, add_special_tokens=False) == new.encode(text).tolist()
    ids = theirs.encode(f"the {theirs.mask_token} ferry", add_special_tokens=False)
    assert ids.count(new.mask_id) == 1


@pytest.mark.shared
@pytest.mark.parity
def test_roberta_learns_words(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = makers.shared_data("roberta_vocab")
    if not folder.exists():
        pytest.skip("the shared data is not there")
    old = Tokenizer.load(folder)
    new, extension = extend_tokenizer(old, domain_texts(), 60, 5)
    assert extension.new[0].id == extension.base_vocab_size == 50_265
    assert (new.mask_id, new.vocab_size) == (50_264, 50_265 + len(extension.new))
    for word in WRITTEN:
        assert len(new.encode(word)) == 1, word
    text = " ".join([*domain_texts(3), *makers.TEXTS[:3]])
    assert undone(new.encode(text), extension) == old.encode(text).tolist()
    assert new.check_fast_path([text])
    new.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(text, add_special_tokens=False) == new.encode(text).tolist()
    assert astuple(new.specials) == astuple(old.specials)


def test_the_file_beside_the_tokenizer(tmp_path):
    _, _, extension = byte_level()
    assert read_extension(tmp_path) is None
    save_extension(tmp_path, extension)
    assert read_extension(tmp_path) == extension
    values = json.loads((tmp_path / EXTENSION_FILE).read_text("utf-8"))
    assert values["base_vocab_size"] == 350
    assert values["new"][0] == {
        "id": 350,
        "token": extension.new[0].token,
        "pieces": list(extension.new[0].pieces),
    }
    save_extension(tmp_path, None)
    assert read_extension(tmp_path) is None
    save_extension(tmp_path, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_vocab_size": 11}, "'xy' has id 10 and pieces .3, 4., expected id 11 and pieces below 11"),
        ({"base_vocab_size": 4}, "'xy' has id 10"),
        ({"new": []}, "new"),
        ({"sample": {}}, "sample.words"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, message):
    save_extension(tmp_path, Extension(base_vocab_size=10, new=(ENTRY,), sample=COUNTS))
    path = tmp_path / EXTENSION_FILE
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(values | change), "utf-8")
    with pytest.raises(TokenizerError, match=rf"(?s)extension\.json.*{message}.*prepare the data again"):
        read_extension(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_file_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / EXTENSION_FILE).write_text(content, "utf-8")
    with pytest.raises(TokenizerError, match=r"extension\.json.*prepare the data again or restore the file"):
        read_extension(tmp_path)
