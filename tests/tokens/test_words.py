"""The word of each position: the same whoever asks, and never out of its document."""

import random

import numpy as np
import pytest
import vocabulary_makers as makers
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_helpers import publish
from word_texts import LETTERS, TEXTS, expected_begins

from maskwright.core.errors import ShardError
from maskwright.tokens.shard_writing import EncodedDocuments, write_shard
from maskwright.tokens.shards import TokenData, open_split
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.tokens.words import (
    LOOK_BACK,
    MAX_WORD_TOKENS,
    open_words,
    words_by_file,
    words_by_table,
)

chance = random.Random(7)
DOCUMENTS = [
    *TEXTS,
    *("".join(chance.choice(LETTERS) for _ in range(chance.randrange(60))) for _ in range(40)),
    "ab" * 100,  # one word of many tokens
    "x",
    f"{'ᚠ' * 90} end",
]


@pytest.fixture(scope="module")
def tokenizer():
    """Few entries, so that words have many tokens."""
    return Tokenizer.train(TEXTS * 3, 300)


@pytest.fixture(scope="module")
def begins(tokenizer):
    """What the splitter says of each document, by document."""
    return [expected_begins(tokenizer, text) for text in DOCUMENTS]


def write(folder, tokenizer, begins=None):
    """Shards of seven documents each, so that windows cross them; words are stored if given."""
    shards = []
    for number, start in enumerate(range(0, len(DOCUMENTS), 7)):
        ids, counts = tokenizer.encode_batch(DOCUMENTS[start : start + 7])
        flags = [flag for row in begins[start : start + 7] for flag in row] if begins else None
        batch = EncodedDocuments(ids, counts, None, np.array(flags, bool) if begins else None)
        written = write_shard(
            folder,
            "train",
            number,
            [batch],
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
            words=begins is not None,
        )
        shards.append(written.shard)
    publish(folder, {"train": shards})
    return open_split(folder, "train")


@pytest.fixture(scope="module")
def plain(tokenizer, tmp_path_factory):
    return write(tmp_path_factory.mktemp("plain"), tokenizer)


@pytest.fixture(scope="module")
def stored(tokenizer, begins, tmp_path_factory):
    return write(tmp_path_factory.mktemp("stored"), tokenizer, begins)


@pytest.fixture(scope="module")
def sources(plain, stored, tokenizer):
    return {"table": words_by_table(plain, tokenizer), "file": words_by_file(stored)}


def expected_starts(begins):
    """Word by word, position by position, without looking at windows."""
    starts, position, newest = [], 0, 0
    for row in begins:
        for flag in [*row, True]:  # the closing id is a word
            newest = position if flag else newest
            cut = position - position % MAX_WORD_TOKENS
            starts.append(newest if cut - newest < MAX_WORD_TOKENS else cut)
            position += 1
    return np.array(starts)


@pytest.mark.parametrize("kind", ["table", "file"])
def test_the_words_of_all_documents(sources, plain, begins, kind):
    everything = np.arange(plain.num_tokens)
    found = sources[kind].starts(everything)
    assert found.tolist() == expected_starts(begins).tolist()
    assert (found[found] == found).all()  # the first token of a word is of that word
    assert (found >= sources[kind].document_starts(everything)).all()


@pytest.mark.parametrize("kind", ["table", "file"])
def test_every_single_position(sources, plain, begins, kind):
    expected = expected_starts(begins)
    for position in range(plain.num_tokens):
        assert sources[kind].starts(np.array([position])).tolist() == [expected[position]]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["table", "file"]))
def test_answers_do_not_depend_on_how_positions_are_split(sources, plain, begins, data, kind):
    expected = np.append(expected_starts(begins), -1)
    windows = st.tuples(st.integers(0, plain.num_tokens - 1), st.integers(0, 90)).map(
        lambda window: list(range(window[0], min(plain.num_tokens, sum(window))))
    )
    single = st.lists(st.integers(-1, plain.num_tokens - 1), max_size=5)
    rows = data.draw(st.lists(windows | single | st.just([-1]), max_size=6))
    positions = np.array([place for row in rows for place in row], np.int64)
    assert sources[kind].starts(positions).tolist() == expected[positions].tolist()


def test_long_words_are_cut_where_their_positions_say(sources, plain, begins):
    starts = sources["table"].starts(np.arange(plain.num_tokens))
    first = np.flatnonzero(np.diff(starts, prepend=-1))
    sizes = np.diff(np.append(first, plain.num_tokens))
    assert sizes.max() < 2 * MAX_WORD_TOKENS
    true = np.concatenate([[*row, True] for row in begins])
    cuts = first[~true[first]]
    assert len(cuts) > 3
    assert (cuts % MAX_WORD_TOKENS == 0).all()
    true_first = np.flatnonzero(true)
    for size, start in zip(np.diff(true_first), true_first[:-1], strict=True):
        if size <= MAX_WORD_TOKENS:
            assert (starts[start : start + size] == start).all()


def test_a_batch_with_added_specials(sources, begins):
    expected = expected_starts(begins)
    positions = np.array([[-1, 3, 4, 5, -1], [-1, 70, 71, 72, -1]])
    found = sources["table"].starts(positions)
    assert found.tolist() == np.where(positions < 0, -1, expected[positions]).tolist()
    assert sources["table"].starts(np.full((2, 3), -1)).tolist() == [[-1] * 3] * 2


def test_document_starts(sources, plain):
    counts = [len(plain.document(number)) + 1 for number in range(plain.num_documents)]
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    positions = np.arange(plain.num_tokens)
    assert sources["table"].document_starts(positions).tolist() == firsts.tolist()
    shuffled = np.array([[5, -1], [plain.num_tokens - 1, 0]])
    assert sources["file"].document_starts(shuffled).tolist() == [[firsts[5], -1], [firsts[-1], 0]]


def test_positions_outside(sources, plain):
    for source in sources.values():
        for wrong in ([plain.num_tokens], [0, 1, plain.num_tokens + 5]):
            with pytest.raises(IndexError, match=f"lies outside 0 to {plain.num_tokens}"):
                source.starts(np.array(wrong))
            with pytest.raises(IndexError, match=f"lie outside 0 to {plain.num_tokens}"):
                source.document_starts(np.array(wrong))


def test_no_further_back_than_told(plain, tokenizer, monkeypatch):
    read = []
    honest = TokenData.tokens
    monkeypatch.setattr(
        TokenData,
        "tokens",
        lambda data, start, count: read.append((start, count)) or honest(data, start, count),
    )
    words_by_table(plain, tokenizer).starts(np.array([400, 401]))
    assert read == [(400 - LOOK_BACK - 8, LOOK_BACK + 2 + 16)]


def test_stored_words_are_taken_where_there_are_any(plain, stored, tokenizer, monkeypatch):
    def refuse(*_):
        raise AssertionError("the table is not needed")

    monkeypatch.setattr("maskwright.tokens.words.word_rule", refuse)
    positions = np.arange(stored.num_tokens)
    assert (open_words(stored, tokenizer).starts(positions) <= positions).all()
    with pytest.raises(AssertionError, match="the table is not needed"):
        open_words(plain, tokenizer)


def test_words_that_were_not_stored(plain):
    assert not plain.has_words
    for ask in (lambda: words_by_file(plain), lambda: plain.words(0, 3)):
        with pytest.raises(ShardError, match=r"was prepared without the borders of words; prepare it again"):
            ask()


def test_wordpiece_across_shards(tmp_path):
    tokenizer = Tokenizer.load(makers.write_bert(tmp_path / "bert", do_lower_case=True))
    manifest = makers.write_data(tmp_path / "data", tokenizer, {"train": ["abbb theS hello"] * 60})
    data = TokenData(tmp_path / "data", manifest, "train")
    pieces = [tokenizer.token_text(number) for number in data.tokens(0, data.num_tokens).tolist()]
    starts = open_words(data, tokenizer).starts(np.arange(data.num_tokens))
    assert any(piece.startswith("##") for piece in pieces)
    assert len(data.shards) > 1
    newest = 0
    for position, piece in enumerate(pieces):
        newest = newest if piece.startswith("##") else position
        assert starts[position] == newest
