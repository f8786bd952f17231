"""Words of Chinese in prepared data: stored with every token, the same bytes however they were made."""

import json

import numpy as np
import pytest

import maskwright
import tiny_world
from maskwright.core.config import parse_config
from maskwright.core.errors import ConfigError, DataError, TokenizerError
from maskwright.corpus.runners import Stage, stage
from maskwright.jobs import prepare as job
from maskwright.jobs.inspect import inspect_folder
from maskwright.jobs.preparation import publish
from maskwright.jobs.prepare import PrepareConfig
from maskwright.tokens.manifest import load_manifest
from maskwright.tokens.shards import open_split, verify_folder
from maskwright.tokens.tokenizer import Tokenizer
from maskwright.tokens.words import open_words
from preparing import Killed, kill_at

CUT = "南京市 长江大桥 。 中文 分词 很 难 ， hello"
WHOLE = CUT.replace(" ", "")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """Few entries, so that no token holds a whole Chinese word."""
    folder = tmp_path_factory.mktemp("vocabulary")
    Tokenizer.train(["hello world, 第 it is 2026"] * 9, 290).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def values(tmp_path_factory, vocabulary):
    return settings_for(tmp_path_factory.mktemp("texts"), vocabulary, WHOLE, {"segmenter": "jieba"})


def settings_for(folder, vocabulary, text, words):
    rows = [{"text": f"{text} world{number}"} for number in range(60)]
    path = tiny_world.write_rows(folder / "texts.jsonl", rows)
    return {
        **tiny_world.PREPARE,
        "corpus": {"sources": [{"path": str(path)}]},
        "tokenizer": {"path": vocabulary},
        "tokens_per_shard": 300,
        "words": words,
    }


@pytest.fixture(scope="module")
def folder(values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / "data"
    maskwright.prepare(values, output=folder, workers=1)
    return folder


def words_in(folder, number=0):
    return inspect_folder(folder, document=number, words=True)["document"]["words"]


def test_words_are_stored(folder):
    data = open_split(folder, "train")
    assert data.has_words
    assert len(data.shards) > 1
    expected = ["南京市", "长江大桥", "。", "中文", "分词", "很难", "，", "hello", " world"]
    for number in range(data.num_documents):
        assert words_in(folder, number)[:-1] == expected
    verify_folder(folder)


def test_closing_tokens_are_words(folder):
    data = open_split(folder, "train")
    tokenizer = Tokenizer.load(folder / "tokenizer")
    ids = data.tokens(0, data.num_tokens)
    starts = open_words(data, tokenizer).starts(np.arange(data.num_tokens))
    closing = np.flatnonzero(ids == tokenizer.eos_id)
    assert (starts[closing] == closing).all()
    assert (starts[closing[:-1] + 1] == closing[:-1] + 1).all()


def test_the_audit_and_the_manifest_say_so(folder):
    audit = json.loads((folder / "audit.json").read_text("utf-8"))["words"]
    manifest = load_manifest(folder)
    splits = manifest.splits.values()
    assert audit["segmenter"] == "jieba"
    assert audit["words"] == sum(shard.num_words for split in splits for shard in split.shards) == 60 * 10
    tokens = sum(split.num_tokens - split.num_documents for split in splits)
    assert audit["tokens_per_word"] == tokens / audit["words"] > 1
    assert manifest.provenance["words"]["segmenter"] == "jieba"
    assert manifest.provenance["words"]["library"].startswith("rjieba ")


def test_the_same_bytes_with_several_workers(values, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_SMALL_BYTES", 0)
    maskwright.prepare(values, output=tmp_path / "data", workers=2)
    assert tiny_world.prepared_files(tmp_path / "data") == tiny_world.prepared_files(folder)


@pytest.mark.parametrize(("owner", "name", "after"), [(Stage, "execute", 3), (publish, "save_manifest", 0)])
def test_killed_and_resumed(values, folder, tmp_path, monkeypatch, owner, name, after):
    with monkeypatch.context() as patch:
        kill_at(patch, owner, name, after)
        with pytest.raises(Killed):
            maskwright.prepare(values, output=tmp_path / "data", workers=1)
    maskwright.prepare(values, output=tmp_path / "data", workers=1, resume=True)
    assert tiny_world.prepared_files(tmp_path / "data") == tiny_world.prepared_files(folder)


def test_without_words_there_is_nothing_of_them(values, folder, tmp_path):
    plain = {**values, "words": {"segmenter": "none"}}
    maskwright.prepare(plain, output=tmp_path / "data", workers=1)
    data = open_split(tmp_path / "data", "train")
    assert not data.has_words
    assert not list((tmp_path / "data").rglob("*.words"))
    assert "words" not in json.loads((tmp_path / "data/audit.json").read_text("utf-8"))
    assert words_in(tmp_path / "data")[:7] == list("南京市长江大桥")
    marked = open_split(folder, "train")
    assert data.tokens(0, data.num_tokens).tolist() == marked.tokens(0, marked.num_tokens).tolist()
    assert data.manifest.fingerprint != marked.manifest.fingerprint


def test_spaces_are_taken_out_and_not_learned(vocabulary, tmp_path):
    values = settings_for(tmp_path, vocabulary, CUT, {"segmenter": "spaces"})
    values |= {"tokenizer": {"vocab_size": 400}}
    maskwright.prepare(values, output=tmp_path / "data", workers=1)
    found = inspect_folder(tmp_path / "data", document=0, words=True)["document"]
    assert found["text"].startswith(WHOLE)
    tokenizer = Tokenizer.load(tmp_path / "data/tokenizer")
    learned = [tokenizer.token_text(number) for number in range(tokenizer.vocab_size)]
    assert not any(text.startswith(" ") and text.strip() and ord(text[1]) > 0x3000 for text in learned)
    size = load_manifest(tmp_path / "data").splits["train"].num_text_bytes
    texts = open_split(tmp_path / "data", "train")
    decoded = [tokenizer.decode(texts.document(number)) for number in range(texts.num_documents)]
    assert size == sum(len(text.encode()) for text in decoded)


def test_a_changed_list_is_work_to_do(vocabulary, tmp_path):
    listed = tmp_path / "words.txt"
    listed.write_text("长江大桥\n", "utf-8")
    words = {"segmenter": "dictionary", "dictionary": str(listed)}
    values = settings_for(tmp_path, vocabulary, WHOLE, words)
    maskwright.prepare(values, output=tmp_path / "data", workers=1)
    assert words_in(tmp_path / "data")[:4] == ["南", "京", "市", "长江大桥"]
    listed.write_text("南京市\n", "utf-8")
    maskwright.prepare(values, output=tmp_path / "data", workers=1, resume=True)
    assert words_in(tmp_path / "data")[:3] == ["南京市", "长", "江"]
    provenance = (tmp_path / "data/manifest.json").read_text("utf-8")
    assert str(tmp_path) not in provenance


def test_a_list_that_is_missing_is_refused_before_the_work(vocabulary, tmp_path, monkeypatch):
    words = {"segmenter": "jieba", "dictionary": str(tmp_path / "none.txt")}
    values = settings_for(tmp_path, vocabulary, WHOLE, words)
    kill_at(monkeypatch, job, "Preparation")
    with pytest.raises(DataError, match=r"none\.txt: no such file; check the path"):
        maskwright.prepare(values, output=tmp_path / "data", workers=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"segmenter": "dictionary"}, "segmenter is dictionary, but no dictionary is given; set the path"),
        ({"dictionary": "a.txt"}, "dictionary is given, but segmenter is none, which has no use for it"),
        (
            {"segmenter": "spaces", "dictionary": "a.txt"},
            "dictionary is given, but segmenter is spaces, which has no use for it",
        ),
    ],
)
def test_settings_that_do_not_fit(words, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(PrepareConfig, {"words": words}, "here")


def test_words_are_shown(folder, command):
    shown = command("inspect", folder, "--document", "0", "--words")
    assert shown.code == 0
    assert "南京市|长江大桥|。|中文|分词|很难|，|hello| world|" in shown.out
    listed = command("inspect", folder, "--document", "0", "--words", "--json").json
    assert listed["document"]["words"] == words_in(folder)


def test_words_are_shown_of_a_document(folder, command):
    refused = command("inspect", folder, "--words")
    assert refused.code == 2
    assert "words are asked for without a document; add its number (--document)" in refused.err
    with pytest.raises(ConfigError, match="words are asked for without a document"):
        inspect_folder(folder, words=True)


def test_words_of_data_that_stored_none(data_folder):
    document = inspect_folder(data_folder, document=7, words=True)["document"]
    assert "".join(document["words"]) == document["text"]
    assert len(document["words"]) > 10


def test_a_vocabulary_without_words(folder, tmp_path, vocabulary):
    definition = json.loads((folder / "tokenizer/tokenizer.json").read_text("utf-8"))
    definition["model"]["end_of_word_suffix"] = "</w>"
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/tokenizer.json").write_text(json.dumps(definition), "utf-8")
    values = settings_for(tmp_path, str(tmp_path / "odd"), WHOLE, {"segmenter": "jieba"})
    with pytest.raises(TokenizerError, match="marks the ends of words with '</w>'"):
        maskwright.prepare(values, output=tmp_path / "data", workers=1)
